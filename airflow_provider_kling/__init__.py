"""Apache Airflow provider for the Kling video models behind the AI/ML API.

Importing this package costs nothing: every class lives in the module that README's map names.
"""

__version__ = "0.1.0"
