"""The widely copied EEG spectrogram recipe, by librosa."""

import librosa
import numpy as np

from hms_ray.competition.schema import ELECTRODES
from hms_ray.config.electrodes import CHAINS


def librosa_image(eeg: np.ndarray) -> np.ndarray:
    """Float32 (4, 128, 256) of float32 (n, 20): chains LL, LP, RL, RP."""
    image = np.zeros((4, 128, 256), np.float32)
    for panel, chain in enumerate(("LL", "LP", "RL", "RP")):
        for anode, cathode in CHAINS[chain]:
            signal = eeg[:, ELECTRODES.index(anode)] - eeg[:, ELECTRODES.index(cathode)]
            gaps = np.isnan(signal)
            signal = np.where(gaps, 0 if gaps.all() else signal[~gaps].mean(), signal)
            power = librosa.feature.melspectrogram(
                y=signal.astype(np.float32),
                sr=200,
                hop_length=len(signal) // 256,
                n_fft=1024,
                n_mels=128,
                fmin=0,
                fmax=20,
                win_length=128,
            )
            decibels = librosa.power_to_db(power[:, :256], ref=np.max)
            image[panel] += (decibels + 40) / 40 / 4
    return image
