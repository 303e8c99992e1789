"""What tests do in a browser. Importing this skips the module where Selenium is missing."""

from collections.abc import Callable
from typing import Any

import pytest

By = pytest.importorskip("selenium.webdriver.common.by", reason="no Selenium here: pip install selenium").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait

PATIENCE = 30
_DROP = """
const [target, bytes, name] = arguments;
const data = new DataTransfer();
data.items.add(new File([new Uint8Array(bytes)], name));
for (const kind of ["dragover", "drop"])
  target.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
"""


def find(page: Any, selector: str) -> Any:
    return page.find_element(By.CSS_SELECTOR, selector)


def find_all(page: Any, selector: str) -> list[Any]:
    return page.find_elements(By.CSS_SELECTOR, selector)


def until(page: Any, condition: Callable[[], Any]) -> Any:
    """What a condition gives, once it gives something."""
    return WebDriverWait(page, PATIENCE).until(lambda _: condition())


def shown(page: Any, name: str) -> str:
    """Address of the picture in a frame, once there is one."""
    return until(page, lambda: find(page, f"#{name}").get_attribute("src"))


def changes(page: Any, name: str, act: Callable[[], Any]) -> str:
    """Do something, wait until a picture is another one, and give its address."""
    before = shown(page, name)
    act()
    until(page, lambda: shown(page, name) != before)
    return shown(page, name)


def drop(page: Any, selector: str, name: str, content: bytes) -> None:
    page.execute_script(_DROP, find(page, selector), list(content), name)
