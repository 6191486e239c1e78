"""The Airflow plugin: a tab, a gallery and their data, on Airflow 3.1 and newer."""
