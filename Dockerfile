# The same environment and model that `make setup` builds; `docker run -p 5005:5005 -v minsheng:/app/var minsheng`.
FROM python:3.10-slim
RUN apt-get update && apt-get install -y --no-install-recommends make libgomp1 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.lock Makefile ./
COPY scripts scripts
RUN make .venv/.installed
COPY . .
ENV MINSHENG_HOST=0.0.0.0
RUN make setup
VOLUME /app/var
EXPOSE 5005
CMD [".venv/bin/python", "webhook.py"]
