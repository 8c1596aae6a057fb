"""hms_ray: distributed experiment sweeps for the HMS EEG competition."""

__version__ = "0.1.0"
