"""The vendor's API, without Airflow.

This package can be used from any Python program::

    from airflow_provider_kling.api.client import KlingClient
    from airflow_provider_kling.api.generation import GenerationRequest
    from airflow_provider_kling.api.settings import Settings

    with KlingClient(Settings(api_key="...")) as client:
        generation = client.submit(GenerationRequest(model, {"prompt": "...", "image_url": "https://..."}))
        generation = client.wait(generation.id, timeout=1800)
"""
