'use strict';
(() => {
  const value = document.getElementById('value');
  const light = document.styleSheets[0];

  // Rules for drawings on light paper, out of the page's style.
  const rules = () => Array.from(light.cssRules)
    .filter((rule) => rule.selectorText && rule.selectorText.startsWith('svg.fig .') || (rule.selectorText === 'svg.fig text'))
    .map((rule) => rule.cssText).join('');

  // The wide drawing as a file of its own.
  const source = (figure) => {
    const svg = figure.querySelector('svg.wide').cloneNode(true);
    const name = 'http://www.w3.org/2000/svg';
    const style = document.createElementNS(name, 'style');
    style.textContent = rules();
    const paper = document.createElementNS(name, 'rect');
    paper.setAttribute('class', 'paper');
    paper.setAttribute('width', svg.getAttribute('width'));
    paper.setAttribute('height', svg.getAttribute('height'));
    svg.querySelector('desc').after(style, paper);
    return new XMLSerializer().serializeToString(svg);
  };

  const save = (blob, name) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  const picture = (figure, scale, done) => {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement('canvas');
      canvas.width = image.width * scale;
      canvas.height = image.height * scale;
      canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(done, 'image/png');
    };
    image.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(source(figure));
  };

  for (const figure of document.querySelectorAll('figure')) {
    const name = figure.dataset.name;
    figure.querySelector('.tools').hidden = false;
    figure.addEventListener('click', (event) => {
      const kind = event.target.dataset.save;
      if (kind === 'svg') save(new Blob([source(figure)], { type: 'image/svg+xml' }), name + '.svg');
      if (kind === 'png') picture(figure, 2, (blob) => save(blob, name + '.png'));
    });
  }

  // The value of the cell of a heat map under the pointer, from the table.
  const cell = (svg, event) => {
    const [left, top, width, height, turned] = svg.dataset.grid.split(' ').map(Number);
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const at = [Math.floor((point.y - top) / height), Math.floor((point.x - left) / width)];
    const [row, column] = turned ? at.reverse() : at;
    const table = svg.closest('figure').querySelector('table');
    const line = table.tBodies[0].rows[row];
    const found = column >= 0 && row >= 0 && line && line.cells[column + 1];
    if (!found) return null;
    const heads = table.tHead.rows[0].cells;
    return `layer ${line.cells[0].textContent}, expert ${heads[column + 1].textContent}: ${found.textContent}`;
  };

  for (const svg of document.querySelectorAll('svg[data-grid]')) {
    svg.addEventListener('pointermove', (event) => {
      const text = cell(svg, event);
      value.hidden = !text;
      if (!text) return;
      value.textContent = text;
      const room = document.documentElement.clientWidth - value.offsetWidth - 8;
      value.style.left = Math.max(8, Math.min(event.clientX + 12, room)) + 'px';
      value.style.top = event.clientY + 16 + 'px';
    });
    svg.addEventListener('pointerleave', () => { value.hidden = true; });
  }
})();
