"""/studio/models: who may do what there, and the pages themselves in a browser."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bot.frozen import list_frozen
from bot.jobs import JobRun, cancel_job, find_job
from bot.models import archive_path, find_model, keep_report, list_events, promoted_model, report_of
from bot.services import Services
from bot.train_job import confirmed_doubts
from bot.web import studio_models
from tests.model_shelf import BETTER, FIRST, SECOND, WORSE, add_job, fill_shelf, shelf_of
from tests.staff_pages import log_in, log_in_page, staff_app
from tests.stub_app import serving

CHROMIUM = Path("/usr/bin/chromium")
LONG_REASON = "考题里这一条标注错了，已经登记改正"


@pytest.fixture
def shelf(services: Services, tmp_path: Path) -> Services:
    shelf = shelf_of(services, tmp_path / "models")
    fill_shelf(shelf)
    return shelf


@pytest.fixture
def app(shelf: Services) -> Flask:
    return staff_app(shelf, studio_models.create_blueprint(shelf))


# -- who may do what ------------------------------------------------------------------------------------------------------


def test_agents_have_no_business_with_models(app: Flask) -> None:
    agent = log_in(app, "agent")
    assert agent.get("/studio/models").status_code == 403
    assert agent.post("/studio/models/rollback").status_code == 403


def test_supervisor_promotes_what_passes_and_rolls_back(app: Flask, shelf: Services) -> None:
    supervisor = log_in(app, "supervisor")
    assert supervisor.post(f"/studio/models/{BETTER}/promote", json={"reason": "更准"}).status_code == 200
    assert promoted_model(shelf) == BETTER
    assert supervisor.post("/studio/models/rollback", json={"reason": "坐席反映不准"}).get_json() == {"version": SECOND}
    newest, before = list_events(shelf)[:2]
    assert (newest.action, newest.username, newest.reason) == ("rolled_back", "supervisor", "坐席反映不准")
    assert (before.action, before.version, before.previous) == ("promoted", BETTER, SECOND)


def test_candidate_that_fell_is_refused_with_its_figures_and_only_an_admin_overrides(app: Flask, shelf: Services) -> None:
    supervisor, admin = log_in(app, "supervisor"), log_in(app, "admin")
    refused = supervisor.post(f"/studio/models/{WORSE}/promote", json={})
    assert refused.status_code == 409 and "必答题 68 条里答错" in refused.get_json()["error"]
    forced = {"override": True, "reason": LONG_REASON}
    assert supervisor.post(f"/studio/models/{WORSE}/promote", json=forced).status_code == 403
    assert admin.post(f"/studio/models/{WORSE}/promote", json={**forced, "reason": "急"}).status_code == 409
    assert promoted_model(shelf) == SECOND
    assert admin.post(f"/studio/models/{WORSE}/promote", json=forced).status_code == 200
    assert list_events(shelf)[0].action == "overridden"


def test_model_without_comparison_is_compared_first(app: Flask, shelf: Services) -> None:
    supervisor = log_in(app, "supervisor")
    supervisor.post(f"/studio/models/{BETTER}/promote", json={})
    refused = supervisor.post(f"/studio/models/{WORSE}/promote", json={})
    assert refused.status_code == 409 and "对比" in refused.get_json()["error"]
    job = find_job(shelf, supervisor.post(f"/studio/models/{WORSE}/compare").get_json()["job"])
    assert job is not None and (job.kind, job.params) == ("compare", {"version": WORSE})


def test_one_training_at_a_time(app: Flask, shelf: Services) -> None:
    supervisor = log_in(app, "supervisor")
    job = supervisor.post("/studio/models/train", json={"leave_out": ["import:1"]}).get_json()["job"]
    assert supervisor.post("/studio/models/train", json={}).status_code == 409
    assert supervisor.get("/studio/models/state").get_json()["job"]["left_out"] == ["import:1"]
    assert supervisor.post(f"/studio/models/jobs/{job}/cancel").status_code == 200
    assert find_job(shelf, job).state == "cancelled"  # type: ignore[union-attr]
    assert supervisor.post("/studio/models/train", json={}).status_code == 200


def test_serving_model_is_not_deleted_and_others_are(app: Flask, shelf: Services) -> None:
    supervisor = log_in(app, "supervisor")
    assert supervisor.post(f"/studio/models/{SECOND}/delete").status_code == 409
    assert supervisor.post(f"/studio/models/{FIRST}/delete").status_code == 200
    assert not archive_path(shelf.settings.models_dir, FIRST).exists()
    assert supervisor.get(f"/studio/models/{FIRST}").status_code == 404


def test_wrong_test_items_are_taken_out_one_by_one_or_by_import(app: Flask, shelf: Services) -> None:
    supervisor = log_in(app, "supervisor")
    own = [item for item in list_frozen(shelf) if item.source == "import:1"]
    shipped = next(item for item in list_frozen(shelf) if item.source == "shipped")
    assert supervisor.post("/studio/models/tests/retire", json={"id": own[0].id}).get_json() == {"count": 1}
    assert supervisor.post("/studio/models/tests/retire", json={"id": shipped.id}).get_json() == {"count": 0}
    assert supervisor.post("/studio/models/tests/retire", json={"source": "import:1"}).get_json() == {"count": len(own) - 1}


def test_what_was_suspicious_and_trained_all_the_same_stands_on_the_report(app: Flask, shelf: Services) -> None:
    suspicions = [{"kind": "contradicted", "sentence": "“九月工单.xlsx”：标注可能有成批的错误", "source": "import:1"}]
    add_job(shelf, result={"suspicions": suspicions})
    add_job(shelf, state="cancelled", params={"confirmed": True})
    unconfirmed, confirmed = (find_job(shelf, add_job(shelf, state="running", params={"confirmed": value})) for value in (False, True))
    assert unconfirmed is not None and confirmed is not None
    assert confirmed_doubts(JobRun(shelf, unconfirmed)) == {}
    told = confirmed_doubts(JobRun(shelf, confirmed))
    report = report_of(find_model(shelf, BETTER))  # type: ignore[arg-type]
    assert report is not None
    keep_report(shelf, BETTER, {**report, **told})
    supervisor = log_in(app, "supervisor")
    page = supervisor.get(f"/studio/models/{BETTER}").text
    assert "supervisor 看过后照样训练" in page and suspicions[0]["sentence"] in page
    assert "照样训练" not in supervisor.get(f"/studio/models/{WORSE}").text


@pytest.mark.parametrize("version", [FIRST, SECOND, BETTER, WORSE])
def test_every_report_can_be_read(app: Flask, version: str) -> None:
    page = log_in(app, "supervisor").get(f"/studio/models/{version}")
    assert page.status_code == 200 and version in page.text
    assert "style=" not in page.text and "<script>" not in page.text  # the content policy forbids both


# -- in a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--headless", "--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


in_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed")


@pytest.fixture
def page(app: Flask, browser: Browser) -> Iterator[Page]:
    problems: list[str] = []
    with serving(app) as url:
        page = browser.new_page(base_url=url, viewport={"width": 1280, "height": 900})
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.set_default_timeout(30_000)
        log_in_page(page, url, "admin")
        yield page
        page.close()
    assert problems == []


@in_browser
def test_report_says_what_changed_and_the_slider_reckons(page: Page) -> None:
    page.goto(f"/studio/models/{BETTER}")
    expect(page.get_by_role("heading", name="达到上线门槛")).to_be_visible()
    expect(page.locator("#newly-wrong .change").first).to_be_visible()
    page.fill("#per-day", "5000")
    page.locator("#threshold").fill("0")
    expect(page.locator("#to-person")).to_have_text("0")
    expect(page.locator("#to-file")).to_have_text("5000")
    page.locator("#threshold").press("End")
    expect(page.locator("#threshold-value")).to_have_text("100%")
    expect(page.locator("#to-person")).to_have_text("5000")
    page.get_by_role("button", name="正在使用的", exact=True).click()
    expect(page.locator("#heat-old svg")).to_be_visible()
    expect(page.locator("#heat-new svg")).to_be_hidden()


@in_browser
def test_promotion_is_asked_once_more_and_stands_in_the_history(page: Page, shelf: Services) -> None:
    page.goto(f"/studio/models/{BETTER}")
    page.click("#promote")
    page.keyboard.press("Escape")
    assert promoted_model(shelf) == SECOND
    page.click("#promote")
    page.fill("#ask-reason", "城建类更准")
    page.click("#ask-yes")
    page.wait_for_url("**/studio/models")
    expect(page.locator("#promoted")).to_have_text(BETTER)
    expect(page.get_by_text("城建类更准")).to_be_visible()
    expect(page.locator("#serving-badge")).to_have_text("1 个进程里 0 个已经换上")
    page.click("#rollback")
    page.click("#ask-yes")
    expect(page.locator("#promoted")).to_have_text(SECOND)


@in_browser
def test_override_needs_a_written_reason(page: Page, shelf: Services) -> None:
    page.goto(f"/studio/models/{WORSE}")
    page.click("#override")
    page.fill("#ask-reason", "急用")
    expect(page.locator("#ask-yes")).to_be_disabled()
    page.fill("#ask-reason", LONG_REASON)
    page.click("#ask-yes")
    page.wait_for_url("**/studio/models")
    assert promoted_model(shelf) == WORSE


@in_browser
def test_suspicious_data_is_shown_before_training_and_a_batch_can_be_left_out(page: Page, shelf: Services) -> None:
    suspicions = [{"kind": "contradicted", "sentence": "“九月工单.xlsx”：标注可能有成批的错误", "source": "import:1"}]
    add_job(shelf, result={"suspicions": suspicions}, finished_at="2026-11-20T01:00:00.000000+00:00")
    page.goto("/studio/models")
    expect(page.get_by_text("“九月工单.xlsx”：标注可能有成批的错误。")).to_be_visible()
    page.get_by_label("这次不用这一批").check()
    page.click("#train-without")
    expect(page.locator("#job-step")).to_have_text("等待开始")
    job = find_job(shelf, 2)
    assert job is not None and job.params == {"confirmed": False, "leave_out": ["import:1"]}
    expect(page.locator("#train")).to_be_disabled()
    page.click("#job-cancel")
    expect(page.locator("#job-state")).to_have_text("已取消")


@in_browser
def test_progress_and_log_are_live(page: Page, shelf: Services) -> None:
    far = "2099-01-01T00:00:00.000000+00:00"
    job = add_job(shelf, state="running", step="学习：地点", progress=0.55, log="09:00:01 准备考题和训练数据\n", lease_until=far)
    page.goto("/studio/models")
    expect(page.locator("#job-step")).to_have_text("学习：地点")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "55")
    page.get_by_text("日志").click()
    expect(page.locator("#job-log")).to_contain_text("准备考题和训练数据")
    cancel_job(shelf, job)
    page.click("#job-cancel")
    expect(page.locator("#job-cancel")).to_be_visible()
