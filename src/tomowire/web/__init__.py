"""HTTP: the REST API, health and metrics, over the archive's public parts.

`server` runs it in the archive's event loop, `app` puts it together. It is imported after the DICOM port is open.
"""
