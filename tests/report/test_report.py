"""The report: well-formed, self-contained, and honest on its first screen; in a real browser."""

import dataclasses
import json
import re
import shutil
import subprocess

import pytest

from repro.ablations import NAMES
from repro.ablations.catalogue import LONG
from repro.report.answer import answer
from repro.report.claims import PAPER_RESULTS, load_claims
from repro.report.content import CHART, SHOWN_FIGURES, ablation_summary, write_report
from repro.report.documents import (
    DOCUMENTS,
    ablation_sections,
    item_table,
    links,
    refreshed,
    update_documents,
)
from repro.report.expected import NOT_JUDGED, ablation_judged, judgements, means_of
from repro.report.items import FIGURES, ITEMS, find
from repro.report.sources import Sources
from repro.report.verdicts import judge
from repro.runs import RunStore
from tests.report import fake
from tests.report.page import Page


@pytest.fixture(scope="module")
def page(drawn):
    return Page((drawn / "report.html").read_text())


def test_the_page_is_well_formed_and_loads_nothing(page, drawn):
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert len(page.sources) == 1 + len(SHOWN_FIGURES)
    beside = [link for link in page.links if not link.startswith(("#", "https://arxiv.org/"))]
    assert beside
    assert all((drawn / link).exists() for link in beside)
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    style = re.search(r"<style>(.*?)</style>", (drawn / "report.html").read_text(), re.S).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert (drawn / "report.html").stat().st_size < 2_000_000


def test_the_first_screen_answers_the_three_questions(drawn):
    text = (drawn / "report.html").read_text()
    first = text[: text.index("<nav>")].replace("\N{NO-BREAK SPACE}", " ")
    for heading in ("In three lines", "What the paper claims", "What was found", "How sure we are"):
        assert heading in first
    assert "97.78 / 96.89 %" in first
    assert "synthetic stand-in" in first
    assert "the images are not BloodMNIST&#39;s but a synthetic stand-in" in first
    assert "KeyError" in first
    for tag in load_claims().sources:
        assert f"[{tag}] " in first
    finished = re.search(r"(\d+) of (\d+) runs are finished", first)
    assert finished
    assert finished.group(1) == finished.group(2)


def test_the_first_line_says_how_far_the_runs_reach(drawn):
    page = (drawn / "report.html").read_text()
    scope = re.search(r'<p class="scope">(.*?)</p>', page).group(1)
    assert scope.startswith("Quick profile, not the paper&#39;s setting (width 4 instead of 64")
    assert (drawn / "report.md").read_text().split("\n")[2].startswith("**Quick profile, not the")


@pytest.mark.parametrize("profile", ["quick", "paper"])
def test_the_first_screen_says_what_the_runs_can_decide(tmp_path, profile):
    """Only the paper's setting on real images decides; ε is that of the runs' own ledgers."""
    fake.store(tmp_path, ["fedavg", "fedavg-secagg", "calibrated-secagg"], profile, "rebuilt")
    sources = Sources.of(tmp_path)
    given = answer(sources, judge(sources))
    leads = [finding.lead for finding in given.sure]
    decides = profile == "paper"
    assert ("Measured: the paper's accuracy." in leads) == decides
    assert ("Open: the paper's accuracy." in leads) != decides
    assert ("these runs decide" in given.scope) == decides
    assert "at δ = 1.9e-4, for" in given.table.caption
    assert "seeds are public" in given.table.caption
    epochs = {"quick": "1.25", "paper": "150"}[profile]
    assert given.table.rows[1]["epochs"] == epochs
    assert given.table.rows[-1]["epochs"] == "not run"
    cells = {row["what"]: row for row in given.table.rows}
    assert cells["honest for a whole hospital"]["epsilon"] == "6 (hospital)"
    secagg, costs, honest = (finding.text for finding in given.found[1:4])
    assert "accuracy by −0.1 (−0.1, −0.1, −0.1) / −0.1 (−0.1, −0.1, −0.1) points" in secagg
    assert "−0.65 / −0.76 [calc]" in secagg
    assert "an honest ε = 6 for a hospital −78.9 (−78.9, −78.9, −78.9)" in costs
    assert "clipping without noise not run;" in costs
    assert "each hospital's own noise: not run;" in honest
    assert given.short[2] == "What honest privacy costs: not run."


def test_the_longer_training_is_told_once_it_was_run(tmp_path):
    fake.store(tmp_path, ["fedavg"], "quick", "rebuilt")
    rows = [("fedavg", 0.8), ("dpsgd-eps6", 0.5)]
    before = answer(Sources.of(tmp_path), [])
    (tmp_path / "ablations").mkdir()

    def found(*own):
        """With an ablation whose shorter runs are these."""
        variants = [
            {"variant": LONG, "series": arm, "hospitals": 10, "seeds": [0, 1], "runs": []}
            | {"mean": mean, "deviation": 0.01}
            for arm, mean in rows
        ]
        variants.append(dict(variants[0], variant="the profile's own", runs=list(own)))
        file = tmp_path / "ablations" / "training-length.json"
        file.write_text(json.dumps({"data": {"variants": variants}}))
        return answer(Sources.of(tmp_path), []).found

    assert found("a run of another profile") == before.found
    *others, told = found(fake.record("fedavg", 10, 0, "quick", "rebuilt").run_id)
    assert tuple(others) == before.found
    assert "80.00 ± 1.00 % without privacy and 50.00 ± 1.00 %" in told.text
    assert "−30.0 points, both after" in told.text


def test_the_search_is_charged_by_random_stopping(tmp_path):
    """The best of 40 runs of 180 steps at q = 0.12296, σ = 1.42481 costs more than one run's 6 and
    far less than all 40; a run without a schedule is not charged."""
    run = fake.record("scattering-dpsgd-eps6-secagg", 10, 0)
    RunStore(tmp_path).save(run)
    untold = answer(Sources.of(tmp_path), []).found[3].text
    assert "687 simulated settings for second-order steps (`repro search-cost`)" in untold
    schedule = {"noise_multiplier": 1.42481, "sample_rate": 0.12296, "steps": 180}
    rows = [row | schedule for row in run.privacy]
    RunStore(tmp_path).save(dataclasses.replace(run, privacy=rows))
    told = answer(Sources.of(tmp_path), []).found[3].text
    (scattering, second_order) = re.findall(
        r"random stopping would charge ε = ([\d.]+) and ([\d.]+)", told
    )[0]
    assert float(second_order) == 12.7  # 687 trials of a (6, 1e-5)-DP Gaussian release
    assert 6 < float(scattering) < 6 * 40**0.5


def test_what_honest_privacy_reaches_is_read_from_the_runs(drawn):
    """The made-up runs come within 0.06 % of their levels, 0.76 and 0.752, 0.83 in one place."""
    first = (drawn / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "76.0 / 75.2 %" in first
    assert "75.96" in first  # in the table, with its spread
    assert "points against itself without privacy" in first
    assert "82.96 ± 0.40 %" in first


def test_both_forms_list_what_lies_beside(drawn):
    page, text = (drawn / "report.html").read_text(), (drawn / "report.md").read_text()
    for item in FIGURES:
        shown = item.name in (CHART, *SHOWN_FIGURES)
        assert (f"figures/{item.name}.svg" in page) != shown
        assert f"figures/{item.name}.svg" in text
    assert "tables/table3.md" in page
    assert "tables/table3.md" in text


def test_ablations_that_were_run_have_a_line_each(drawn, tmp_path):
    assert "## Ablations" not in (drawn / "report.md").read_text()
    fake.store(tmp_path, ["fedavg"])
    (tmp_path / "ablations").mkdir()
    variants = [
        {"series": arm, "variant": label, "mean": mean, "deviation": 0.01, "seeds": [0, 1]}
        for arm, label, mean in (
            ("dpsgd-eps6", "a\nb", 0.5),
            ("dpsgd-eps6", "c", 0.75),
            ("fedavg", "a\nb", 0.8),  # the best of all, but of an arm that moves less
            ("fedavg", "c", 0.9),
        )
    ]
    content = json.dumps({"data": {"variants": variants}})
    (tmp_path / "ablations" / "clip-norm.json").write_text(content)
    table = ablation_summary(Sources.of(tmp_path))
    assert [row["name"] for row in table.rows] == ["clip-norm"]
    assert table.rows[0]["range"] == "dpsgd-eps6: 50.0 ± 1.0 (a, b) to 75.0 ± 1.0 (c)"


def test_markdown_has_the_same_tables_and_verdicts_and_can_be_read_to_its_end(drawn):
    text = (drawn / "report.md").read_text()
    assert "DP+ / SecAgg+" in text
    assert "not checkable" in text
    assert len(text.split()) < 4050


def test_the_same_store_gives_the_same_report(drawn, tmp_path):
    """Written again in another folder, with the figures that stand in it drawn again."""
    out = shutil.copytree(drawn, tmp_path / "out")
    for path in out.glob("report.*"):
        path.unlink()
    for name in (CHART, *SHOWN_FIGURES):
        (out / "figures" / f"{name}.svg").unlink()
    for path in write_report(Sources.of(out)):
        assert path.read_bytes() == (drawn / path.name).read_bytes()


def test_an_empty_store_reports_that_nothing_was_run(tmp_path, monkeypatch):
    """With the figures that stand in it; ``test_figures.py`` draws all else of such a store."""
    shown = [find("figure", name) for name in (CHART, *SHOWN_FIGURES)]
    monkeypatch.setattr("repro.report.items.ITEMS", shown)
    monkeypatch.setattr("repro.report.content.ITEMS", shown)
    page = write_report(Sources.of(tmp_path))[0].read_text()
    first = page[: page.index("<nav>")]
    assert "No run is finished yet" in first
    assert re.search(r"\(0 of \d+ runs are finished\)", first)
    assert "What honest privacy costs: not run." in first


def test_every_table_and_figure_explains_itself():
    for item in ITEMS:
        assert set(item.about()) == {"Command", "Cost and hardware", "Expected"}, item.name
        assert f"repro {item.kind} " in item.about()["Command"]


def test_documents_keep_their_words_and_get_their_numbers(sources, tmp_path):
    (tmp_path / "docs").mkdir()
    for name in DOCUMENTS:
        (tmp_path / name).write_text(
            "before\n<!-- generated:answer -->\nold\n<!-- end -->\nafter\n"
            "<!-- generated:items -->\n<!-- end -->\n"
        )
    update_documents(sources, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n<!-- generated:answer -->\n**Quick profile")
    assert "\nold\n" not in text
    assert "**Figure 9: DPResNet**" in text
    assert refreshed(text, sources) == text


def test_sections_say_where_their_files_are_and_what_was_not_run(sources):
    """Outside the repository files are named, inside it they are linked."""
    items, ablations = item_table(sources), ablation_sections(sources)
    assert items.count("**: `OUT/") == items.count(f"| {NOT_JUDGED} |") == len(ITEMS)
    assert "`OUT/tables/table1.md`" in items
    assert "`OUT/figures/recall.svg`" in items
    assert ablations.count("### Ablation ") == len(NAMES)
    assert ablations.count("- **Measured.** not run here yet.") == len(NAMES)
    inside = PAPER_RESULTS / "tables" / "table1.md"
    assert links(PAPER_RESULTS, [inside]) == "[table1.md](paper_results/tables/table1.md)."


def test_a_judgement_is_of_the_records_that_were_read():
    """Each ablation's on record, and every item's: when a record moves on, judge it again."""
    assert set(judgements("item")) == {item.name for item in ITEMS}
    files = sorted((PAPER_RESULTS / "ablations").glob("*.json"))
    assert files
    for path in files:
        variants = json.loads(path.read_text())["data"]["variants"]
        assert judgements("ablation")[path.stem].means == means_of(variants), path.stem
        moved = [variants[0] | {"mean": variants[0]["mean"] + 1e-4}, *variants[1:]]
        assert ablation_judged(path.stem, variants) != NOT_JUDGED
        assert ablation_judged(path.stem, moved) == NOT_JUDGED


def test_the_repositorys_documents_have_only_known_parts(sources):
    for name in DOCUMENTS:
        refreshed((PAPER_RESULTS.parent / name).read_text(), sources)


BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
     if (path := shutil.which(name))),
    None,
)  # fmt: skip
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
    *("--allow-file-access-from-files", "--window-size=1400,1000", "--virtual-time-budget=5000"),
)
PROBE = """<script>addEventListener('load', () => {
  const wide = [...document.querySelectorAll('main *')].filter(
    e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1);
  const broken = [...document.images].filter(i => !i.complete || i.naturalWidth === 0);
  document.body.dataset.probe = [document.documentElement.scrollWidth, innerWidth,
    wide.length, broken.length, document.images.length,
    [...document.querySelectorAll('td')].every(
      e => !e.textContent || e.scrollWidth <= innerWidth && e.getBoundingClientRect().width > 0),
    getComputedStyle(document.body).backgroundColor].join(';');
});</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine's PATH")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_real_browser_nothing_overflows_and_every_figure_shows(drawn, tmp_path, width, dark):
    """A frame of the asked width holds the page, since headless windows have a minimum width."""
    inner = tmp_path / "inner.html"
    text = (drawn / "report.html").read_text().replace("</body>", PROBE + "</body>")
    if dark:  # what the browser does itself when its user prefers dark
        text = text.replace("(prefers-color-scheme: dark)", "all")
    inner.write_text(text)
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<iframe src="inner.html" style="width:{width}px;height:900px;border:0"></iframe>'
        "<script>addEventListener('load', () => setTimeout(() => { document.title = "
        "frames[0].document.body.dataset.probe; }, 50));</script>"
    )
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr[-500:]
    scroll, inside, wide, broken, images, cells, ground = title.group(1).split(";")
    assert (int(inside), int(wide), int(broken), cells) == (width, 0, 0, "true")
    assert int(scroll) <= width
    assert int(images) == 1 + len(SHOWN_FIGURES)
    assert (ground != "rgb(255, 255, 255)") == dark


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_repositorys_documents_are_what_its_records_give(name):
    """`repro report --out paper_results --profile quick --update-docs` would change nothing."""
    text = (PAPER_RESULTS.parent / name).read_text()
    assert refreshed(text, Sources.of(PAPER_RESULTS, profile="quick")) == text
