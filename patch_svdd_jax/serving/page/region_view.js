// How the region, and what is being drawn, lies over the photo.
const PAINT = {edge: '#00e5ff', shade: 'rgba(0, 0, 0, .6)', hatch: 'rgba(255, 255, 255, .28)'};

// A pixel of the screen, in those of the canvas.
const unit = () => $('region-canvas').width / $('region-canvas').getBoundingClientRect().width || 1;

function drawRegion({mask, corners, cursor, tool, size, erase}) {
  const canvas = $('region-canvas'), context = canvas.getContext('2d'), pixel = unit();
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = 'source-over';
  drawEdge(context, mask, 2 * pixel);
  drawShade(context, mask, pixel);
  const path = cursor && tool === 'polygon' && corners.length ? [...corners, cursor] : corners;
  drawPath(context, path, pixel);
  for (const [index, corner] of corners.entries()) drawCorner(context, corner, index ? 4 : 7, pixel);
  if (!cursor) return;
  if (tool === 'brush') drawCircle(context, cursor, size / 2, pixel, erase);
  drawCross(context, cursor, pixel);
}

// The mask, moved all around and cut out of itself.
function drawEdge(context, mask, width) {
  for (let turn = 0; turn < 8; turn++) {
    const angle = turn * Math.PI / 4;
    context.drawImage(mask.canvas, width * Math.cos(angle), width * Math.sin(angle));
  }
  context.globalCompositeOperation = 'source-in';
  context.fillStyle = PAINT.edge;
  context.fillRect(0, 0, mask.width, mask.height);
  context.globalCompositeOperation = 'destination-out';
  context.drawImage(mask.canvas, 0, 0);
}

// Where nothing is yet but inside the mask: dark, and hatched, since photos may be dark.
function drawShade(context, mask, pixel) {
  const {width, height} = context.canvas;
  const outside = document.createElement('canvas');
  Object.assign(outside, {width, height});
  const shade = outside.getContext('2d');
  shade.fillStyle = PAINT.shade;
  shade.fillRect(0, 0, width, height);
  shade.strokeStyle = PAINT.hatch;
  shade.lineWidth = 1.5 * pixel;
  shade.beginPath();
  for (let start = -height; start < width; start += 10 * pixel) {
    shade.moveTo(start, height);
    shade.lineTo(start + height, 0);
  }
  shade.stroke();
  shade.globalCompositeOperation = 'destination-out';
  shade.drawImage(mask.canvas, 0, 0);
  context.globalCompositeOperation = 'destination-over';
  context.drawImage(outside, 0, 0);
  context.globalCompositeOperation = 'source-over';
}

// Twice, dark below light, to be seen on any photo.
function strokeTwice(context, pixel, light = '#fff') {
  for (const [colour, width] of [['#000', 4], [light, 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width * pixel;
    context.stroke();
  }
}

function drawPath(context, points, pixel) {
  if (points.length < 2) return;
  context.beginPath();
  for (const {x, y} of points) context.lineTo(x, y);
  strokeTwice(context, pixel, PAINT.edge);
}

function drawCorner(context, {x, y}, radius, pixel) {
  context.beginPath();
  context.arc(x, y, radius * pixel, 0, 2 * Math.PI);
  strokeTwice(context, pixel);
}

function drawCircle(context, {x, y}, radius, pixel, erase) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.setLineDash(erase ? [6 * pixel, 6 * pixel] : []);
  strokeTwice(context, pixel);
  context.setLineDash([]);
}

function drawCross(context, {x, y}, pixel) {
  const arm = 9 * pixel;
  context.beginPath();
  context.moveTo(x - arm, y);
  context.lineTo(x + arm, y);
  context.moveTo(x, y - arm);
  context.lineTo(x, y + arm);
  strokeTwice(context, pixel);
}
