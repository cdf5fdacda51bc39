"""`python -m bot …`: what operators and supervisors type. Parsing of arguments only; the work is done elsewhere."""
from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bot import db
from bot.assistant import AssistantError
from bot.catalogue import CatalogueError
from bot.city_rules import RulesFollower
from bot.cores import core_count, use_all_cores
from bot.jobs import JobError, run_job
from bot.logs import set_up_logging
from bot.models import (
    ModelError,
    NotCompared,
    find_archives,
    list_models,
    models_to_serve,
    promote_model,
    register_model,
    rollback_model,
)
from bot.orphans import die_with_parent
from bot.services import Services, build_services, install_services
from bot.settings import SettingsError, settings_from_environment
from bot.staff import Staff
from bot.wechat_http import WeChatError, explain

EXPECTED = (JobError, SettingsError, CatalogueError, ModelError, AssistantError, db.StorageError, FileNotFoundError, ValueError)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when done, 1 with one sentence on standard error when not, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    set_up_logging()
    try:
        return int(options.run(options) or 0)
    except WeChatError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bot", description="Minsheng 民声")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    add("serve", _serve, "serve on MINSHENG_HOST:MINSHENG_PORT")
    train = add("train", _train, "train a model on nlu_data; the first one is promoted")
    train.add_argument("--if-missing", action="store_true", help="do nothing when there is a model already that this version can read")
    parse = add("parse", _parse, "print the parse of a text as JSON")
    parse.add_argument("text")
    classify = add("classify", _classify, "add the parse to every row of a csv, xlsx or jsonl file")
    classify.add_argument("input", type=Path)
    classify.add_argument("--out", type=Path, required=True)
    hotspots = add("hotspots", _hotspots, "find what many people write about: same place, same matter, close in time")
    hotspots.add_argument("input", type=Path, help="csv, xlsx or jsonl with columns text and received_at")
    hotspots.add_argument("--out", type=Path, required=True, help=".xlsx, .csv or .json")
    hotspots.add_argument("--top", type=int, default=10, help="how many hot spots are written (10)")
    evaluate = add("evaluate", _evaluate, "score the serving model on labelled messages")
    evaluate.add_argument("gold", type=Path)
    evaluate.add_argument("--json", type=Path, required=True)
    benchmark = add("benchmark", _benchmark, "train and score one reader on given files")
    benchmark.add_argument("what", choices=["category", "address"])
    benchmark.add_argument("--train", type=Path, action="append", required=True)
    benchmark.add_argument("--test", type=Path, required=True)
    benchmark.add_argument("--json", type=Path, required=True)
    importing = add("import", _import, "import labelled work orders (csv, xlsx, jsonl) as annotations")
    importing.add_argument("file", type=Path)
    models = add("models", _models, "list, promote or roll back models")
    models.add_argument("action", choices=["list", "promote", "rollback"])
    models.add_argument("version", nargs="?")
    models.add_argument("--json", action="store_true")
    relay = add("relay", _relay, "deliver to dispatch, as a process of its own")
    relay.add_argument("--once", action="store_true", help="deliver what is due and stop")
    menu = add("menu", _menu, "compare the official account's menu with the city's menu.yml, or put that on the account")
    menu.add_argument("action", choices=["show", "apply"])
    codes = add("qrcode", _qrcode, "make A4 sheets with the codes of scanned places (scenes.csv), to be printed")
    codes.add_argument("scenes", nargs="*", metavar="SCENE", help="codes of scenes.csv; none = all")
    codes.add_argument("--out", type=Path, required=True, metavar="DIR")
    codes.add_argument("--url", metavar="BASE", help="lead to the chat page at this address instead of the official account")
    user = add("user", _user, "staff accounts")
    user.add_argument("action", choices=["add"])
    user.add_argument("username")
    user.add_argument("--role", choices=["agent", "supervisor", "admin"], default="agent")
    user.add_argument("--districts", default="", help="comma-separated; empty = all")
    user.add_argument("--cleared", action="store_true", help="may read confidential reports")
    job = add("job", _job, "do the work of a claimed job (the service starts this itself)")
    job.add_argument("id", type=int)
    return parser


def _services() -> Services:
    settings = settings_from_environment()
    services = build_services(settings)
    install_services(services)
    db.migrate(settings)
    RulesFollower(services).follow()
    return services


def _serve(_options: argparse.Namespace) -> None:
    import webhook

    webhook.serve(settings_from_environment())


def _train(options: argparse.Namespace) -> None:
    from bot.dataset import build_dataset, dataset_hash
    from bot.frozen import seed_shipped
    from bot.nlu.place_finder import is_readable
    from bot.training import train_model

    services = _services()
    if options.if_missing and any(map(is_readable, find_archives(services.settings.models_dir))):
        return
    print("训练模型，要几分钟 / training, takes some minutes …", file=sys.stderr)
    seed_shipped(services)
    dataset, now = build_dataset(services), services.now()
    path = train_model(services.settings, dataset, version=now.strftime("%Y%m%d-%H%M%S"))
    print(register_model(services, path, trained_at=now, metrics={}, data_hash=dataset_hash(dataset)))


def _parse(options: argparse.Namespace) -> None:
    from bot.embedded import open_embedded
    from bot.parse import parse_text

    services = _services()
    assistant = open_embedded(models_to_serve(services))
    print(json.dumps(parse_text(options.text, assistant, services.catalogue, services.gazetteer), ensure_ascii=False, indent=1))


def _classify(options: argparse.Namespace) -> None:
    from bot.batch import classify_file
    from bot.embedded import open_embedded

    services = _services()
    assistant = open_embedded(models_to_serve(services))
    count = classify_file(options.input, options.out, assistant, services, processes=core_count())
    print(f"{count} rows -> {options.out}")


def _hotspots(options: argparse.Namespace) -> None:
    from bot.hotspot_files import write_hot_spots

    services = _services()
    archive, cores = models_to_serve(services)[0], core_count()
    report = write_hot_spots(options.input, options.out, archive, services, top=options.top, processes=cores)
    if report.problem:
        print(report.problem, file=sys.stderr)
    print(f"{len(report.spots)} hot spots of {report.appeals} appeals -> {options.out}")


def _evaluate(options: argparse.Namespace) -> None:
    from bot.embedded import open_embedded
    from bot.evaluation import evaluate_file

    services = _services()
    report = evaluate_file(options.gold, open_embedded(models_to_serve(services)), services)
    options.json.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if not isinstance(value, (dict, list))}, ensure_ascii=False, indent=1))


def _benchmark(options: argparse.Namespace) -> None:
    if options.what == "address":
        from bot.address_benchmark import benchmark_address

        report = benchmark_address(options.train, options.test, build_services(settings_from_environment()).gazetteer)
    else:
        from bot.benchmark import benchmark_category

        report = benchmark_category(options.train, options.test)
    options.json.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if not key.startswith("per_")}, ensure_ascii=False, indent=1))


def _import(options: argparse.Namespace) -> None:
    from bot.importing import import_file

    count, problems = import_file(options.file, _services())
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{count} rows imported, {len(problems)} refused")


def _models(options: argparse.Namespace) -> None:
    services = _services()
    models_to_serve(services)  # an archive copied in by hand is a model too
    if options.action == "promote":
        if not options.version:
            raise ModelError("which version? `models list` shows them")
        _promote(services, options.version)
        print(f"{options.version} promoted")
    elif options.action == "rollback":
        print(f"{rollback_model(services)} promoted")
    elif options.json:
        print(json.dumps(list_models(services), ensure_ascii=False))
    else:
        for model in list_models(services):
            print(f"{model['version']}  {model['state']:<10} {model['trained_at'][:19]}")


def _promote(services: Services, version: str) -> None:
    """Compares first where there is no comparison with the model that serves now."""
    try:
        promote_model(services, version)
    except NotCompared:
        from bot.comparison import compare_model

        print("和正在使用的模型对比，大约一分钟 / comparing with the serving model, about a minute …", file=sys.stderr)
        compare_model(services, version)
        promote_model(services, version)


def _relay(options: argparse.Namespace) -> None:
    import threading

    import requests

    from bot.outbox import Relay, build_transport

    services = _services()
    relay = Relay(services, build_transport(services, requests.Session()))
    if options.once:
        print(f"{relay.run_once()} deliveries attempted")
    else:
        relay.run_forever(threading.Event())


def _menu(options: argparse.Namespace) -> None:
    from bot.phrases import menu_keys
    from bot.services import DATA_DIR
    from bot.wechat_api import WeChatClient
    from bot.wechat_menu import compare_menus, load_menu, menu_payload, read_menu

    services = _services()
    path = DATA_DIR / "cities" / services.settings.city / "menu.yml"
    city, client = load_menu(path, keys=menu_keys(), public_url=services.settings.public_url), WeChatClient(services)
    if options.action == "apply":
        client.create_menu(menu_payload(city))
        print("menu applied; followers see it when they next open the account, at most five minutes from now")
        return
    now, wanted = compare_menus(read_menu(client.get_menu()), city)
    print("on the account now (- goes away):", *(now or ["  nothing"]), sep="\n")
    print(f"asked for by {path.name} (+ comes):", *wanted, sep="\n")


def _qrcode(options: argparse.Namespace) -> None:
    from bot.scene_codes import make_sheets

    for path in make_sheets(_services(), options.scenes, options.out, base=options.url):
        print(path)


def _user(options: argparse.Namespace) -> None:
    services = _services()
    password = getpass.getpass("password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    districts = [name.strip() for name in options.districts.split(",") if name.strip()]
    staff = Staff(services.engine, services.now)
    staff.add(options.username, password, options.role, districts=districts, cleared=options.cleared)
    print(f"{options.role} {options.username} added")


def _job(options: argparse.Namespace) -> None:
    die_with_parent()
    use_all_cores()
    run_job(_services(), options.id)
