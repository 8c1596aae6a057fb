"use strict";
// Drawing of EEGs and spectrograms on canvases, crisp on screens of any density.

const MM = 96 / 25.4; // CSS pixels
const SENSITIVITIES = [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500, 1000]; // uV/mm
const CALIBRATIONS = [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000]; // uV
const LANES_HIGH = 3; // deflections are cut at so many lanes
const CHAINS = ["left temporal", "right temporal", "left parasagittal", "right parasagittal"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function decoded(text) {
  const bytes = atob(text), array = new Uint8Array(bytes.length);
  for (let n = 0; n < bytes.length; n++) array[n] = bytes.charCodeAt(n);
  return array;
}

// A context in CSS pixels, cleared, and its width and height.
function blank(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  pen.textBaseline = "middle";
  return { pen, width, height };
}

function line(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

// Half pixels, on which lines of one pixel are sharp.
const crisp = (x) => Math.round(x) + 0.5;

// Label rows in as few lines as their own ten seconds need without overlap.
function stacked(labels) {
  const ends = [];
  return labels.map((label) => {
    let lane = ends.findIndex((end) => end <= label.start_s + 1e-9);
    if (lane < 0) lane = ends.length;
    ends[lane] = label.end_s;
    return { ...label, lane };
  });
}

// The sensitivity at which the largest waves of a channel fill its lane.
function ownSensitivity(values, lane) {
  const sizes = Float32Array.from(values.filter((value) => !Number.isNaN(value)), Math.abs).sort();
  if (!sizes.length) return SENSITIVITIES[0];
  const large = Math.max(20, sizes[Math.floor(0.995 * (sizes.length - 1))]);
  return SENSITIVITIES.find((step) => (large * MM) / step <= 0.9 * lane) || SENSITIVITIES.at(-1);
}

// Draws an EEG. eeg: answer of /eeg with values as Float32Array; row: answer of /row;
// channels, groups: of the page; sensitivity: uV/mm. Returns the sensitivity of the EKG.
function drawEeg(canvas, eeg, row, channels, groups, sensitivity) {
  const { pen, width, height } = blank(canvas);
  const begin = eeg.start_s, end = begin + eeg.seconds;
  const marks = stacked(row.labels.filter((label) => label.end_s > begin && label.start_s < end));
  const nLines = 1 + Math.max(-1, ...marks.map((mark) => mark.lane));
  const markStep = Math.max(3, Math.min(11, 44 / Math.max(1, nLines)));
  const left = 72, right = width - 10, top = 22 + nLines * markStep, bottom = height - 24;
  const plot = {
    left, right, top, bottom, begin, end,
    x: (second) => left + ((second - begin) / eeg.seconds) * (right - left),
    // The last lanes are for the calibration, the first one for waves of the first channel.
    lane: (bottom - top) / (channels.length + 0.6 * groups.length + 2.5),
  };
  drawSeconds(pen, plot, (row.window_s[0] + row.window_s[1]) / 2);
  drawMarks(pen, plot, marks, markStep);
  const groupEnds = new Set();
  groups.reduce((sum, [, size]) => (groupEnds.add(sum + size), sum + size), 0);
  let y = top + 1.2 * plot.lane, ekgSensitivity = 0;
  channels.forEach((name, channel) => {
    y += plot.lane * (groupEnds.has(channel) ? 1.6 : channel ? 1 : 0.3);
    const values = eeg.values.subarray(channel * eeg.points, (channel + 1) * eeg.points);
    const isEkg = name === "EKG";
    const step = isEkg ? ownSensitivity(values, plot.lane) : sensitivity;
    if (isEkg) ekgSensitivity = step;
    pen.fillStyle = colour("ink");
    pen.textAlign = "right";
    pen.fillText(name, left - 10, y);
    drawGaps(pen, plot, eeg.gaps.filter(([of]) => of === channel), y);
    drawTrace(pen, plot, values, eeg.point_s, y, MM / step);
  });
  drawCalibration(pen, plot, sensitivity);
  return ekgSensitivity;
}

// A line for each second, and the centre of the row's window.
function drawSeconds(pen, { left, right, top, bottom, begin, end, x }, centre) {
  const isLong = end - begin > 10;
  pen.fillStyle = colour("middle");
  if (isLong) pen.fillRect(x(centre - 5), top, x(centre + 5) - x(centre - 5), bottom - top);
  pen.lineWidth = 1;
  pen.textAlign = "center";
  for (let second = Math.ceil(begin); second <= end; second++) {
    const isNamed = !isLong || second % 5 === 0;
    pen.strokeStyle = colour(isLong && isNamed ? "strong" : "second");
    line(pen, crisp(x(second)), top, crisp(x(second)), bottom);
    pen.fillStyle = colour("soft");
    if (isNamed && x(second) < right - 50) pen.fillText(second, x(second), bottom + 10);
  }
  pen.textAlign = "right";
  pen.fillText("s", right, bottom + 10);
  pen.strokeStyle = pen.fillStyle = colour("accent");
  pen.setLineDash([5, 4]);
  line(pen, crisp(x(centre)), 14, crisp(x(centre)), bottom);
  pen.setLineDash([]);
  pen.beginPath();
  pen.moveTo(x(centre) - 5, 6);
  pen.lineTo(x(centre) + 6, 6);
  pen.lineTo(x(centre) + 0.5, 14);
  pen.fill();
  pen.textAlign = "left";
  pen.fillText("centre", x(centre) + 9, 9);
}

function drawGaps(pen, { x, lane }, gaps, y) {
  pen.textAlign = "center";
  for (const [, first, last] of gaps) {
    pen.fillStyle = colour("gap");
    pen.fillRect(x(first), y - 0.3 * lane, Math.max(1, x(last) - x(first)), 0.6 * lane);
    pen.fillStyle = colour("ink");
    if (x(last) - x(first) > 70) pen.fillText("no signal", (x(first) + x(last)) / 2, y);
  }
}

function drawMarks(pen, { left, right, begin, end, x }, marks, step) {
  if (!marks.length) return;
  pen.fillStyle = colour("soft");
  pen.textAlign = "right";
  pen.fillText(marks.length > 1 ? "label rows" : "label row", left - 10, 19 + step / 2);
  for (const mark of marks) {
    const from = Math.max(x(mark.start_s), left), to = Math.min(x(mark.end_s), right);
    const y = 19 + mark.lane * step;
    pen.fillStyle = colour("truth");
    pen.globalAlpha = 0.45;
    pen.fillRect(from, y, to - from, Math.max(2, step - 2));
    pen.globalAlpha = 1;
    // Ends that are inside the shown time.
    pen.fillStyle = colour("ink");
    if (mark.start_s >= begin) pen.fillRect(from, y, 1.5, Math.max(2, step - 2));
    if (mark.end_s <= end) pen.fillRect(to - 1.5, y, 1.5, Math.max(2, step - 2));
    if (step < 11 || to - from < 24) continue;
    pen.textAlign = "left";
    pen.font = pen.font.replace("12px", "10px");
    pen.fillText(mark.sub_id, from + 5, y + step / 2 - 0.5);
    pen.font = pen.font.replace("10px", "12px");
  }
}

// Negative is up, so microvolts grow with y.
function drawTrace(pen, { left, top, right, bottom, begin, end, x, lane }, values, pointS, y, perUv) {
  const most = (LANES_HIGH * lane) / perUv;
  pen.save();
  pen.beginPath();
  pen.rect(left, top, right - left, bottom - top);
  pen.clip();
  pen.strokeStyle = colour("ink");
  pen.lineWidth = end - begin > 10 ? 0.8 : 1;
  pen.lineJoin = "round";
  pen.beginPath();
  let isDrawn = false;
  const first = x(begin), step = x(begin + pointS) - first;
  for (let n = 0; n < values.length; n++) {
    const value = values[n];
    if (Number.isNaN(value)) {
      isDrawn = false;
      continue;
    }
    const px = first + n * step, py = y + Math.max(-most, Math.min(most, value)) * perUv;
    if (isDrawn) pen.lineTo(px, py);
    else pen.moveTo(px, py);
    isDrawn = true;
  }
  pen.stroke();
  pen.restore();
}

// One second, and a round number of microvolts, below the channels.
function drawCalibration(pen, { x, begin, right, bottom, lane }, sensitivity) {
  const perUv = MM / sensitivity;
  const uv = CALIBRATIONS.findLast((one) => one * perUv <= 1.25 * lane) || CALIBRATIONS[0];
  const high = uv * perUv, wide = x(begin + 1) - x(begin);
  const at = right - wide - 10, y = bottom - 6;
  pen.fillStyle = colour("paper");
  pen.fillRect(at - 58, y - high - 4, right - at + 58, high + 10);
  pen.strokeStyle = pen.fillStyle = colour("accent");
  pen.lineWidth = 2;
  pen.beginPath();
  pen.moveTo(at, y - high);
  pen.lineTo(at, y);
  pen.lineTo(at + wide, y);
  pen.stroke();
  pen.textAlign = "right";
  pen.fillText(`${uv} \u00b5V`, at - 6, y - high / 2);
  pen.textAlign = "left";
  pen.fillText("1 s", at + 7, y - 9);
}

// From dark to bright, also in shades of grey.
const SCALE = [
  [20, 8, 60], [58, 26, 110], [98, 40, 128], [142, 58, 124], [186, 78, 108],
  [222, 108, 84], [244, 150, 66], [250, 198, 90], [252, 244, 180],
];

function shade(byte) {
  const place = (byte / 254) * (SCALE.length - 1), low = Math.min(Math.floor(place), SCALE.length - 2);
  return SCALE[low].map((value, n) => value + (place - low) * (SCALE[low + 1][n] - value));
}

// The numbers of a colour such as #d9d2c4.
function rgb(text) {
  return [1, 3, 5].map((n) => parseInt(text.slice(n, n + 2), 16));
}

// Draws the four chains of a spectrogram. image: answer of /spectrograms with cells as
// Uint8Array; centre: of the row's window in the image's seconds; time: its ticks.
function drawSpectrogram(canvas, image, centre, band, ticks) {
  const { pen, width, height } = blank(canvas);
  const [nPanels, nHz, nTimes] = image.shape;
  const left = 34, right = width - 56, top = 16, bottom = height - 34, space = 22;
  const high = (bottom - top - space * (nPanels - 1)) / nPanels;
  const x = (second) => left + ((second - image.start_s) / (image.end_s - image.start_s)) * (right - left);
  const table = Array.from({ length: 256 }, (_, n) => (n === 255 ? rgb(colour("gap")) : shade(n)));
  pen.imageSmoothingEnabled = false;
  for (let panel = 0; panel < nPanels; panel++) {
    const y = top + panel * (high + space);
    const cells = document.createElement("canvas");
    cells.width = nTimes;
    cells.height = nHz;
    const paint = cells.getContext("2d"), pixels = paint.createImageData(nTimes, nHz);
    for (let hz = 0; hz < nHz; hz++) {
      for (let time = 0; time < nTimes; time++) {
        const at = 4 * ((nHz - 1 - hz) * nTimes + time);
        pixels.data.set(table[image.cells[(panel * nHz + hz) * nTimes + time]], at);
        pixels.data[at + 3] = 255;
      }
    }
    paint.putImageData(pixels, 0, 0);
    pen.drawImage(cells, left, y, right - left, high);
    pen.fillStyle = colour("ink");
    pen.textAlign = "left";
    pen.fillText(CHAINS[panel], left, y - 8);
    pen.fillStyle = colour("soft");
    pen.textAlign = "right";
    for (const hz of [0, image.max_hz / 2, image.max_hz]) {
      pen.fillText(Math.round(hz), left - 5, y + high - (hz / image.max_hz) * high);
    }
    pen.strokeStyle = "#fff";
    pen.setLineDash([4, 3]);
    pen.lineWidth = 1.5;
    line(pen, x(centre), y, x(centre), y + high);
    pen.setLineDash([]);
    pen.lineWidth = 2;
    // The shorter time that the centre stands for, as a bracket below.
    pen.strokeStyle = colour("accent");
    line(pen, x(band[0]), y + high + 2, Math.max(x(band[1]), x(band[0]) + 2), y + high + 2);
  }
  pen.fillStyle = colour("soft");
  pen.textAlign = "center";
  for (const [second, text] of ticks) pen.fillText(text, x(second), bottom + 13);
  pen.textAlign = "left";
  pen.fillText("Hz", 2, 6);
  pen.fillText(ticks.unit, left, bottom + 27);
  drawScale(pen, image, right + 14, top, bottom);
}

function drawScale(pen, image, x, top, bottom) {
  for (let y = top; y < bottom; y++) {
    pen.fillStyle = `rgb(${shade((254 * (bottom - y)) / (bottom - top)).map(Math.round)})`;
    pen.fillRect(x, y, 10, 1.5);
  }
  pen.fillStyle = colour("soft");
  pen.textAlign = "left";
  pen.fillText(Math.round(image.decibels[1]), x + 14, top + 4);
  pen.fillText("dB", x + 14, (top + bottom) / 2);
  pen.fillText(Math.round(image.decibels[0]), x + 14, bottom - 4);
}
