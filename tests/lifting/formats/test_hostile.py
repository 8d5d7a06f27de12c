"""Damaged and hostile files are refused with one sentence and in bounded memory."""

import resource
import warnings
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pano4d.benchmarks.fuzz_formats import run
from pano4d.benchmarks.fuzz_inputs import Corpus, sample
from pano4d.lifting.formats import spz
from pano4d.lifting.formats.ply import unpack_ply
from pano4d.lifting.formats.sog import pack_sog
from pano4d.lifting.formats.sog_read import unpack_sog
from pano4d.lifting.formats.splat import unpack_splat
from pano4d.lifting.formats.spz_codes import encode
from pano4d.runtime.errors import InputError

READERS = {"ply": unpack_ply, "splat": unpack_splat, "spz": spz.unpack, "sog": unpack_sog}
SOUND = {"spz": spz.compress(spz.to_bytes(encode(sample(20), 12))), "sog": pack_sog(sample(20))}


def refuses_or_reads(kind, data):
    """Read; a refusal is one line."""
    try:
        READERS[kind](data, "a")
    except InputError as error:
        assert "\n" not in str(error) and str(error)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(READERS)), st.binary(max_size=400))
def test_any_bytes(kind, data):
    refuses_or_reads(kind, data)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 30), st.binary(max_size=60))
def test_any_spz_header(count, degree, bits, body):
    head = spz._HEADER.pack(spz._MAGIC, 3, count, degree, bits, 0, 0)
    if count == 0 and degree < 4 and bits < 24 and not body:
        assert not len(spz.unpack(spz.compress(head), "a").alphas)
    elif len(body) != 20 * count:
        with pytest.raises(InputError):
            spz.unpack(spz.compress(head + body), "a")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(SOUND)), st.data())
def test_any_cut(kind, data):
    whole = SOUND[kind]
    with pytest.raises(InputError):
        READERS[kind](whole[: data.draw(st.integers(0, len(whole) - 1))], "a")


def test_counts_that_are_wrong():
    payload = bytearray(spz.to_bytes(encode(sample(20), 12)))
    for count in (19, 21, 2**31):
        payload[8:12] = count.to_bytes(4, "little")
        with pytest.raises(InputError, match="longer|cut short|promises"):
            spz.unpack(spz.compress(bytes(payload)), "a")
    for count in (b"99999999999", b"9" * 5000):
        with pytest.raises(InputError, match="cut short|header line"):
            unpack_ply(b"ply\nformat binary_little_endian 1.0\nelement vertex " + count
                       + b"\nproperty float x\nend_header\n", "a")


def test_a_gzip_bomb_takes_no_memory():
    packer, count = zlib.compressobj(9, zlib.DEFLATED, 31), 50_000_000
    parts = [packer.compress(spz._HEADER.pack(spz._MAGIC, 3, count, 0, 12, 0, 0))]
    parts += [packer.compress(bytes(2**20)) for _ in range(1000)]
    bomb = b"".join([*parts, packer.flush()])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="promises 1000000016 bytes"):
        spz.unpack(bomb, "a")
    # A sound header before a gigabyte of zeros.
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(spz.to_bytes(encode(sample(2), 12)))
    with pytest.raises(InputError, match="longer"):
        spz.unpack(b"".join([head, *(packer.compress(bytes(2**20)) for _ in range(1000)), packer.flush()]), "a")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_picture_bomb_is_refused_by_its_size():
    sound = bytearray(SOUND["sog"])
    at = sound.index(b"VP8L") + 9
    sound[at : at + 4] = (16382 | 16382 << 14 | 1 << 28).to_bytes(4, "little")
    with pytest.raises(InputError):
        unpack_sog(bytes(sound), "a")


def test_a_fuzz_run_finds_nothing(tmp_path):
    with warnings.catch_warnings(action="error"):
        figures = run(Corpus(tmp_path), 1500, seed=2)
    assert figures["crashes"] == 0 and figures["accepted"] > 30 and figures["refused"] > 1000
