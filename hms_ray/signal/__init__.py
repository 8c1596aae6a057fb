"""EEG signals: bipolar montages and spectrograms."""
