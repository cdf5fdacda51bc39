"""Encryption at rest, pseudonyms and secret links, all from the one SECRET_KEY."""
from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


class VaultError(Exception):
    """Stored data cannot be read with this SECRET_KEY."""


class Vault:
    """Seals JSON values; derives stable pseudonyms and link tokens. Each use has a key of its own."""

    def __init__(self, secret_key: str) -> None:
        self._secret = secret_key.encode()
        self._fernet = Fernet(base64.urlsafe_b64encode(self._derive("encryption")))
        self._pseudonym_key, self._link_key = self._derive("pseudonym"), self._derive("link")
        self._search_key = self._derive("search")
        self.search_term = functools.lru_cache(maxsize=50_000)(self._search_term)  # the same pairs come again and again

    def _derive(self, purpose: str) -> bytes:
        return hmac.new(self._secret, f"minsheng/{purpose}/1".encode(), hashlib.sha256).digest()

    def seal(self, value: Any) -> bytes:
        return self._fernet.encrypt(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())

    def open(self, sealed: bytes) -> Any:
        """The inverse of seal(). Raises VaultError when the key does not fit or the data was changed."""
        try:
            return json.loads(self._fernet.decrypt(bytes(sealed)))
        except InvalidToken:
            raise VaultError("stored data does not fit this SECRET_KEY") from None

    def pseudonym(self, *parts: str) -> str:
        """A stable name for a person in a channel that cannot be turned back: conversation ids, log fields."""
        return hmac.new(self._pseudonym_key, "\x1f".join(parts).encode(), hashlib.sha256).hexdigest()[:32]

    def person_key(self, phone: str | None) -> str | None:
        """The keyed hash by which tickets and calls of one telephone number (digits) find each other."""
        return self.pseudonym("person", phone) if phone else None

    def _search_term(self, word: str) -> str:
        """Five letters and digits that stand for a word in the search index. 25 bits: about one in a hundred words is not alone."""
        number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4, key=self._search_key).digest(), "big")
        return "".join(_LETTERS[number >> shift & 31] for shift in (0, 5, 10, 15, 20))

    def link_token(self, ticket_number: str) -> str:
        """The secret part of a ticket's tracking link: 144 bits, derived, so that it need not be stored in the clear."""
        digest = hmac.new(self._link_key, ticket_number.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:18]).decode()

    @staticmethod
    def digest(token: str) -> str:
        return hashlib.sha256(token.encode()).hexdigest()

    def signing_secret(self, purpose: str) -> bytes:
        """Key material for sessions and cookies."""
        return self._derive(purpose)
