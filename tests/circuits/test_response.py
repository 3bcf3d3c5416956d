"""The response table against Aer running every circuit, and its cache.

Torch is imported inside functions: the processes that fill the cache at once do without it.
"""

import multiprocessing
import os
import stat
import warnings

import numpy as np
import pytest
from safetensors.numpy import save

from qnad_art.circuits.product import Site
from qnad_art.circuits.response import READOUTS, response_table
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import CacheWarning, InvalidInputError

DEVICES = ("ibm_nairobi", "ibm_mumbai", "ibm_sherbrooke", "ibm_torino")
FEW = (Site(0), Site(0, 1))


def some_sites(device, random):
    """Plain, direct and spectator sites, four of each."""
    from qnad_art.placement.placement import device_placement

    sites = device_placement(device).sites
    kinds = (
        [s for s in sites if s.neighbour is None],
        [s for s in sites if s.neighbour is not None and s.partner is None],
        [s for s in sites if s.partner is not None],
    )
    return [kind[i] for kind in kinds for i in random.choice(len(kind), 4, replace=False)]


TOLERANCE = 1e-9


def worst_difference(device, readout, products, seed, most=8):
    """Largest |table - Aer| over random products."""
    from qnad_art.engines.aer import AerEngine

    random = np.random.default_rng(seed)
    sites = some_sites(device, random)
    table = response_table(device, sites, readout=readout, cache=False)
    site = random.integers(len(sites), size=products)
    pairs = random.integers(-most, most + 1, size=products)
    pairs *= np.array([sites[i].neighbour is not None for i in site])
    theta, phi = random.uniform(-np.pi, np.pi, (2, products))
    exact = AerEngine(device, readout=readout).expectations(theta, phi, sites, site, pairs)
    return np.abs(table.expectation(theta, phi, site, pairs) - exact).max()


@pytest.fixture(scope="module")
def tables(nairobi, ecr_line):
    from qnad_art.placement.placement import device_placement

    return [
        response_table(device, device_placement(device).sites, readout=readout)
        for device in (nairobi, ecr_line)
        for readout in READOUTS
    ]


class TestAgainstAer:
    @pytest.mark.parametrize("readout", READOUTS)
    @pytest.mark.parametrize("name", DEVICES)
    def test_random_products(self, name, readout):
        assert worst_difference(load_device(name), readout, 15, seed=1) < TOLERANCE

    @pytest.mark.slow
    @pytest.mark.parametrize("readout", READOUTS)
    @pytest.mark.parametrize("name", DEVICES)
    def test_many_random_products(self, name, readout):
        assert worst_difference(load_device(name), readout, 250, seed=2) < TOLERANCE

    @pytest.mark.parametrize("readout", READOUTS)
    def test_products_on_ecr_targets(self, ecr_line, readout):
        from qnad_art.engines.aer import AerEngine
        from qnad_art.placement.placement import device_placement

        random = np.random.default_rng(3)
        sites = device_placement(ecr_line, compute=(0, 2, 4)).sites
        table = response_table(ecr_line, sites, readout=readout, max_pairs=2)
        assert np.abs(table.values[:, :, 1]).max() > 0.05  # cos θ counts here
        theta, phi = random.uniform(-np.pi, np.pi, (2, 12))
        site, pairs = random.integers(3, len(sites), 12), random.integers(-2, 3, 12)
        exact = AerEngine(ecr_line, readout=readout).expectations(theta, phi, sites, site, pairs)
        assert np.abs(table.expectation(theta, phi, site, pairs) - exact).max() < 1e-9


class TestProperties:
    def test_expectations_lie_in_the_unit_interval(self, tables):
        random = np.random.default_rng(0)
        for table in tables:
            shape = (2000,)
            site = random.integers(len(table.sites), size=shape)
            pairs = random.integers(-table.max_pairs, table.max_pairs + 1, size=shape)
            theta, phi = random.uniform(-np.pi, np.pi, (2, *shape))
            assert np.abs(table.expectation(theta, phi, site, pairs)).max() <= 1 + 1e-12

    def test_cosine_of_the_input_vanishes_on_nairobi(self, paper_nairobi):
        from qnad_art.placement.placement import device_placement

        for readout in READOUTS:
            sites = device_placement(paper_nairobi).sites
            table = response_table(paper_nairobi, sites, readout=readout)
            assert np.abs(table.values[:, :, 1, :]).max() < 1e-12

    @pytest.mark.parametrize("name", ["ibm_nairobi", "ibm_torino"])
    def test_turns_are_those_of_the_phase_without_noise(self, name):
        from qnad_art.placement.placement import device_placement

        quiet = dict.fromkeys(("relaxation", "gates", "readout"), 0.0)
        device = load_device(name).changed(quiet, crosstalk_model="paper")
        sites = [s for s in device_placement(device).sites if s.neighbour is not None][::9]
        table = response_table(device, sites, max_pairs=3, cache=False)
        for count in (-2, 1, 3):
            c = table.values[:, count + 3, 2]
            found = np.arctan2(c[:, 1], c[:, 2])
            wrapped = (table.turns[:, count + 3] + np.pi) % (2 * np.pi) - np.pi
            np.testing.assert_allclose(found, wrapped, atol=1e-9)

    def test_twirling_removes_the_offset_of_readout(self, nairobi):
        twirled, raw = (response_table(nairobi, FEW, readout=readout) for readout in READOUTS)
        assert np.abs(twirled.values[0, 8, 0, 0]) < 1e-3
        assert 0.01 < np.abs(raw.values[0, 8, 0, 0]) < 0.1

    def test_plain_sites_are_the_same_at_every_count(self, tables):
        for table in tables:
            for index, site in enumerate(table.sites):
                if site.neighbour is None:
                    assert (table.values[index] == table.values[index, 0]).all()

    def test_ideal_device_multiplies(self):
        table = response_table(load_device("ideal"), [Site(0), Site(0, 1), Site(0, 1, 3)])
        expected = np.zeros((3, 3))
        expected[2, 2] = 1.0
        np.testing.assert_allclose(
            table.values, np.broadcast_to(expected, table.values.shape), atol=1e-12
        )

    def test_more_pairs_shrink_the_signal(self, nairobi):
        values = response_table(nairobi, [Site(0, 1)]).values[0]
        lengths = np.hypot(values[:, 2, 1], values[:, 2, 2])
        assert (np.diff(lengths[8:]) < 0).all()
        assert (np.diff(lengths[:9]) > 0).all()

    def test_order_of_sites_is_kept(self, nairobi):
        sites = [Site(4, 5), Site(0), Site(0, 1)]
        table = response_table(nairobi, sites, max_pairs=1)
        assert table.sites == tuple(sites)
        assert table.index[Site(0)] == 1
        again = response_table(nairobi, sites[::-1], max_pairs=1)
        np.testing.assert_array_equal(table.values, again.values[::-1])

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"readout": "x"}, "readout 'x' is not one of twirled, raw"),
            ({"max_pairs": -1}, "max_pairs is -1; it must lie in 0 to 127"),
            ({"max_pairs": 128}, "max_pairs is 128"),
        ],
    )
    def test_bad_settings_are_refused(self, nairobi, settings, says):
        with pytest.raises(InvalidInputError, match=says):
            response_table(nairobi, FEW, **settings)

    @pytest.mark.parametrize("most", [0, 127])
    def test_fewest_and_most_pairs_of_a_table(self, nairobi, most):
        table = response_table(nairobi, [Site(0)], max_pairs=most)
        assert table.values.shape == (1, 2 * most + 1, 3, 3)
        assert table.max_pairs == most

    def test_without_pairs_there_is_still_the_product(self, nairobi):
        only, more = (response_table(nairobi, FEW, max_pairs=most) for most in (0, 1))
        np.testing.assert_array_equal(only.values[:, 0], more.values[:, 1])

    def test_a_table_says_what_it_is_of(self, nairobi):
        table = response_table(nairobi, FEW)
        assert (table.device, table.device_hash) == ("ibm_nairobi", nairobi.hash)
        assert (table.readout, table.max_pairs) == ("twirled", 8)
        raw = response_table(nairobi, FEW, readout="raw")
        assert raw.readout == "raw"
        assert (raw.values != table.values).any()


def fill(directory, start, content):
    os.environ["QNAD_CACHE_DIR"] = directory
    device = DeviceProfile.from_dict(content)
    start.wait(60)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CacheWarning)
        response_table(device, FEW, max_pairs=1)


class TestCache:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("QNAD_CACHE_DIR", str(tmp_path / "cache"))
        return tmp_path / "cache"

    @pytest.fixture
    def no_aer(self, monkeypatch):
        """Function: from now on nothing can be computed."""

        def forbidden(*args, **kwargs):
            raise AssertionError("Aer was run")

        return lambda: monkeypatch.setattr("qiskit_aer.AerSimulator", forbidden)

    def entries(self, cache):
        return [path for path in cache.rglob("*") if path.is_file()]

    def test_second_call_reads_the_file(self, nairobi, cache, no_aer):
        first = {r: response_table(nairobi, FEW, max_pairs=1, readout=r).values for r in READOUTS}
        assert len(self.entries(cache)) == 1
        no_aer()
        for readout, values in first.items():
            again = response_table(nairobi, FEW, max_pairs=1, readout=readout).values
            np.testing.assert_array_equal(again, values)

    def test_another_question_is_another_entry(self, nairobi, cache):
        other = nairobi.from_dict(nairobi.model_dump() | {"zz_scale": 0.5})
        for device, sites, pairs in [
            (nairobi, FEW, 1),
            (nairobi, FEW, 2),
            (nairobi, FEW[::-1], 1),
            (nairobi, [Site(0), Site(2, 1)], 1),
            (other, FEW, 1),
        ]:
            response_table(device, sites, max_pairs=pairs)
        assert len(self.entries(cache)) == 5

    def test_an_entry_is_of_its_kind_and_bears_no_name_of_a_device(self, nairobi, cache):
        response_table(nairobi, FEW, max_pairs=1)
        (path,) = self.entries(cache)
        assert path.parent == cache / "response"
        assert len(path.stem) == 64
        assert path.suffix == ".safetensors"

    def test_without_cache_nothing_is_read(self, nairobi, cache, no_aer):
        response_table(nairobi, FEW, max_pairs=1)
        no_aer()
        with pytest.raises(AssertionError, match="Aer was run"):
            response_table(nairobi, FEW, max_pairs=1, cache=False)

    @pytest.mark.parametrize("fault", ["unsigned", "another table"])
    def test_intact_files_that_are_not_the_entry_are_replaced(self, nairobi, cache, fault):
        values = response_table(nairobi, FEW, max_pairs=1).values
        (path,) = self.entries(cache)
        if fault == "unsigned":
            path.write_bytes(save({"values": np.stack([values, values])}))
        else:
            response_table(nairobi, FEW, max_pairs=2)
            (other,) = set(self.entries(cache)) - {path}
            path.write_bytes(other.read_bytes())
        with pytest.warns(CacheWarning, match=rf"{path} fails its checksum; computing it again"):
            again = response_table(nairobi, FEW, max_pairs=1).values
        np.testing.assert_array_equal(again, values)

    def test_without_cache_nothing_is_written(self, nairobi, cache):
        response_table(nairobi, FEW, max_pairs=1, cache=False)
        assert not cache.exists()

    @pytest.mark.parametrize("damage", ["empty", "half", "head", "header", "value", "foreign"])
    def test_damaged_entry_is_rebuilt_with_a_warning(self, nairobi, cache, damage):
        values = response_table(nairobi, FEW, max_pairs=1).values
        (path,) = self.entries(cache)
        data = bytearray(path.read_bytes())
        if damage in ("head", "header", "value"):
            data[{"head": 0, "header": 40, "value": -3}[damage]] ^= 0x10
        path.write_bytes({"empty": b"", "half": data[: len(data) // 2]}.get(damage, data))
        if damage == "foreign":
            path.write_bytes(b"something else\n" * 100)
        with pytest.warns(CacheWarning, match=rf"{path} .*; computing it again"):
            again = response_table(nairobi, FEW, max_pairs=1).values
        np.testing.assert_array_equal(again, values)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            response_table(nairobi, FEW, max_pairs=1)

    def test_unwritable_directory_warns_and_the_table_is_right(self, nairobi, cache):
        cache.parent.mkdir(exist_ok=True)
        cache.write_text("a file where the directory should be")
        with pytest.warns(CacheWarning, match=rf"Cannot write the cache entry {cache}/.*Not a dir"):
            table = response_table(nairobi, FEW, max_pairs=1)
        expected = response_table(nairobi, FEW, max_pairs=1, cache=False)
        np.testing.assert_array_equal(table.values, expected.values)

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_directory_warns(self, nairobi, cache):
        cache.mkdir()
        cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.warns(CacheWarning, match="Cannot write"):
            response_table(nairobi, FEW, max_pairs=1)
        cache.chmod(stat.S_IRWXU)

    def test_processes_filling_it_at_once_leave_one_valid_entry(self, nairobi, cache, no_aer):
        context = multiprocessing.get_context("spawn")
        start = context.Barrier(3)
        arguments = (str(cache), start, nairobi.model_dump())
        processes = [context.Process(target=fill, args=arguments) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert len(self.entries(cache)) == 1
        no_aer()
        response_table(nairobi, FEW, max_pairs=1)
