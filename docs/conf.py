"""Sphinx: the site of ``docs/``. ``make docs`` builds it, and every warning is an error."""

from __future__ import annotations

import os
from importlib.metadata import metadata
from pathlib import Path

# The API reference imports the operators, and Airflow creates its home wherever it is imported.
os.environ["AIRFLOW_HOME"] = str(Path(__file__).resolve().parent.parent / "build" / "airflow-home")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

from airflow_provider_kling import __version__  # after the environment that Airflow reads

project = "airflow-provider-kling"
author = "The airflow-provider-kling authors"
project_copyright = f"2026 {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["README.md"]
html_theme = "furo"
_urls = dict(each.split(", ") for each in metadata("airflow-provider-kling").get_all("Project-URL", []))
html_baseurl = _urls["Documentation"]
html_theme_options = {
    "source_repository": _urls["Source"],
    "source_branch": "main",
    "source_directory": "docs/",
}
html_title = f"Kling provider {version}"
html_favicon = "../airflow_provider_kling/ui/static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "show-inheritance": True}
# What Airflow's base classes document of themselves is on Airflow's site.
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
