// Brings a drawing to the size and place that MNIST's digits have.

const BOX = 20 / 28; // of the picture: the digit's longer side
const LEAST = 0.1; // brightness from which on a pixel belongs to the digit
const SAMPLES = 6; // in each direction, averaged for a pixel

/**
 * @param {Float32Array} pixels `[height][width]`, in [0, 1].
 * @param {number} width
 * @param {number} height
 * @param {number} newWidth
 * @param {number} newHeight
 * @returns {Float32Array} `[newHeight][newWidth]`: the digit fills the middle, its centre of mass in the picture's.
 */
export function centred(pixels, width, height, newWidth, newHeight) {
  let [left, right, top, bottom, mass, x, y] = [width, -1, height, -1, 0, 0, 0];
  pixels.forEach((value, i) => {
    if (value < LEAST) return;
    const [column, row] = [i % width, Math.floor(i / width)];
    [left, right] = [Math.min(left, column), Math.max(right, column)];
    [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
    mass += value;
    x += value * (column + 0.5);
    y += value * (row + 0.5);
  });
  const result = new Float32Array(newWidth * newHeight);
  if (right < 0) return result;
  const scale = Math.max(right - left + 1, bottom - top + 1) / (BOX * Math.min(newWidth, newHeight)); // pixels for one
  for (let i = 0; i < result.length; i++) {
    let sum = 0;
    for (let s = 0; s < SAMPLES * SAMPLES; s++) {
      const newX = (i % newWidth) + ((s % SAMPLES) + 0.5) / SAMPLES;
      const newY = Math.floor(i / newWidth) + (Math.floor(s / SAMPLES) + 0.5) / SAMPLES;
      const column = Math.floor(x / mass + (newX - newWidth / 2) * scale);
      const row = Math.floor(y / mass + (newY - newHeight / 2) * scale);
      if (column >= 0 && column < width && row >= 0 && row < height) sum += pixels[row * width + column];
    }
    result[i] = sum / SAMPLES ** 2;
  }
  return result;
}
