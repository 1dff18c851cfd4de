// A region as what was done to the model's own: to undo is to draw it anew without the last step.
// Opaque is inside.
class RegionMask {
  constructor(width, height, model) {
    this.canvas = document.createElement('canvas');
    Object.assign(this.canvas, {width, height});
    this.context = this.canvas.getContext('2d', {willReadFrequently: true});
    this.model = model;
    this.done = [];
    this.undone = [];
    this.redraw();
  }

  get width() { return this.canvas.width; }
  get height() { return this.canvas.height; }

  // What is added to the whole image would change nothing: it begins a region of its own.
  add(step) {
    const alone = !step.erase && Boolean(step.points) && this.share() === 1;
    this.done.push({...step, alone});
    this.undone = [];
    this.draw(this.done.at(-1));
  }

  // Lengthens the stroke that was added last.
  extend(point) {
    const stroke = this.done.at(-1);
    stroke.points.push(point);
    this.drawLine({...stroke, points: stroke.points.slice(-2)});
  }

  undo() { return this.move(this.done, this.undone); }
  redo() { return this.move(this.undone, this.done); }

  move(from, to) {
    if (!from.length) return false;
    to.push(from.pop());
    this.redraw();
    return true;
  }

  // Takes the last step back as though it had never been.
  drop() {
    this.done.pop();
    this.redraw();
  }

  redraw() {
    this.cover(true);
    if (this.model) {
      this.context.clearRect(0, 0, this.width, this.height);
      this.context.imageSmoothingEnabled = false;
      this.context.drawImage(this.model, 0, 0, this.width, this.height);
    }
    for (const step of this.done) this.draw(step);
  }

  cover(inside) {
    this.context.globalCompositeOperation = 'source-over';
    this.context.fillStyle = '#fff';
    if (inside) this.context.fillRect(0, 0, this.width, this.height);
    else this.context.clearRect(0, 0, this.width, this.height);
  }

  draw(step) {
    if (step.alone) this.cover(false);
    if (step.kind === 'whole' || step.kind === 'nothing') this.cover(step.kind === 'whole');
    if (step.kind === 'invert') {
      this.context.globalCompositeOperation = 'source-out';
      this.context.fillStyle = '#fff';
      this.context.fillRect(0, 0, this.width, this.height);
    }
    if (step.kind === 'polygon') this.drawPolygon(step);
    if (step.kind === 'stroke') this.drawLine(step);
  }

  drawPolygon(step) {
    this.context.globalCompositeOperation = step.erase ? 'destination-out' : 'source-over';
    this.context.fillStyle = '#fff';
    this.context.beginPath();
    for (const {x, y} of step.points) this.context.lineTo(x, y);
    this.context.fill('evenodd');
  }

  drawLine({points, size, erase}) {
    const context = this.context;
    context.globalCompositeOperation = erase ? 'destination-out' : 'source-over';
    Object.assign(context, {
      fillStyle: '#fff', strokeStyle: '#fff', lineWidth: size, lineCap: 'round', lineJoin: 'round',
    });
    // Not all browsers draw a line of no length.
    context.beginPath();
    context.arc(points[0].x, points[0].y, size / 2, 0, 2 * Math.PI);
    context.fill();
    context.beginPath();
    for (const {x, y} of points) context.lineTo(x, y);
    context.stroke();
  }

  has({x, y}) {
    const [column, row] = [Math.min(x, this.width - 1), Math.min(y, this.height - 1)];
    return this.context.getImageData(column, row, 1, 1).data[3] > 127;
  }

  // The share of the image that counts.
  share() {
    const pixels = this.context.getImageData(0, 0, this.width, this.height).data;
    let inside = 0;
    for (let index = 3; index < pixels.length; index += 4) inside += pixels[index] > 127;
    return inside / (this.width * this.height);
  }

  // White on black, as files of regions are.
  png() {
    const flat = document.createElement('canvas');
    Object.assign(flat, {width: this.width, height: this.height});
    const context = flat.getContext('2d');
    context.fillRect(0, 0, this.width, this.height);
    context.drawImage(this.canvas, 0, 0);
    return new Promise((done) => flat.toBlob(done, 'image/png'));
  }
}

// The region that a PNG shows, as `RegionMask` takes it; null is the whole image.
async function readRegion() {
  const answer = await fetch('region');
  if (answer.status === 204) return null;
  if (!answer.ok) throw new Error((await answer.json()).error);
  const bitmap = await createImageBitmap(await answer.blob());
  const canvas = document.createElement('canvas');
  Object.assign(canvas, {width: bitmap.width, height: bitmap.height});
  const context = canvas.getContext('2d');
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let index = 0; index < pixels.data.length; index += 4) {
    pixels.data[index + 3] = pixels.data[index] > 127 ? 255 : 0;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}
