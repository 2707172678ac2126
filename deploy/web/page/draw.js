// Spectrograms and small pictures on canvases.

// Black over violet and orange to pale yellow, evenly brighter from shade to shade.
const COLOURS = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];

const palette = Array.from({ length: 256 }, (_, shade) => {
  const place = (shade / 255) * (COLOURS.length - 1);
  const i = Math.min(COLOURS.length - 2, Math.floor(place));
  return COLOURS[i].map((from, c) => from + (place - i) * (COLOURS[i + 1][c] - from));
});

/**
 * Draws a spectrogram, 0 Hz at the bottom.
 *
 * @param {HTMLElement} place Receives the canvas and its axes.
 * @param {{ width: number, height: number, highest: number, shades: Uint8Array }} picture
 * @param {string} name What it shows, for those who do not see it.
 * @param {number} seconds The recording's length.
 */
export function drawSpectrogram(place, { width, height, highest, shades }, name, seconds) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Spectrogram of ${name}`);
  const image = new ImageData(width, height);
  for (let column = 0; column < width; column++) {
    for (let row = 0; row < height; row++) {
      const at = 4 * ((height - 1 - row) * width + column);
      image.data.set(palette[shades[column * height + row]], at);
      image.data[at + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  const top = element("span", { className: "top", textContent: `${(highest / 1000).toFixed(1)} kHz` });
  const axis = element("div", { className: "axis" });
  axis.append(element("span", { textContent: "0:00" }), element("span", { textContent: clock(seconds) }));
  place.replaceChildren(canvas, top, element("div", { className: "playhead" }), axis);
}

/** Draws a grey picture, values in [0, 1]. @param {HTMLCanvasElement} canvas */
export function drawGrey(canvas, values, width, height) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  values.forEach((value, i) => image.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Makes an element with properties. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A duration as minutes and seconds. */
export function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}
