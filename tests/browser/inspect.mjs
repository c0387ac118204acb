// Checks that run inside the page; each returns a list of sentences about what is wrong.

/** Contrast of every visible piece of text against what lies behind it, as WCAG 2.2 1.4.3 asks. */
export function contrast() {
  const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', {
    willReadFrequently: true,
  });
  const paint = (...colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) {
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
    }
    return context.getImageData(0, 0, 1, 1).data;
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b]
      .map((value) => value / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at !== null; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
    return layers;
  };
  const wrong = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
    const element = node.parentElement;
    if (
      node.textContent.trim() === '' ||
      !element.checkVisibility({ opacityProperty: true }) ||
      element.closest('noscript')
    )
      continue;
    const style = getComputedStyle(element);
    if (style.clipPath !== 'none' || element.closest('.announcer, .skip')) continue;
    const layers = behind(element);
    context.globalAlpha = 1;
    const ground = luminance(paint(...layers));
    paint(...layers);
    context.globalAlpha = Number(style.opacity);
    context.fillStyle = style.color;
    context.fillRect(0, 0, 1, 1);
    context.globalAlpha = 1;
    const text = luminance(context.getImageData(0, 0, 1, 1).data);
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    const large =
      parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5))
      wrong.push(`${ratio.toFixed(2)}:1 for ${JSON.stringify(node.textContent.trim().slice(0, 40))}`);
  }
  return wrong;
}

/** Names, headings, ids, alternative texts and the size of what is to be hit. */
export function structure() {
  const wrong = [];
  const visible = (selector) => [...document.querySelectorAll(selector)].filter((element) => element.checkVisibility());
  const text = (ids) =>
    (ids ?? '')
      .split(' ')
      .map((id) => document.getElementById(id)?.textContent ?? '')
      .join(' ')
      .trim();
  const nameOf = (element) =>
    element.getAttribute('aria-label') ||
    text(element.getAttribute('aria-labelledby')) ||
    [...(element.labels ?? [])].map((label) => label.textContent.trim()).join(' ') ||
    element.textContent.trim() ||
    element.title;
  for (const element of visible(
    'button, input, select, textarea, a[href], summary, progress, [role=img], section[aria-labelledby]',
  )) {
    if (!nameOf(element)) wrong.push(`no name: ${element.outerHTML.slice(0, 80)}`);
  }
  for (const element of visible('button, select, summary, label:has(input)')) {
    const { width, height } = element.getBoundingClientRect();
    if (Math.min(width, height) < 20) wrong.push(`${width}x${height} to hit: ${element.outerHTML.slice(0, 80)}`);
  }
  for (const image of document.querySelectorAll('img:not([alt])')) wrong.push(`no alt: ${image.outerHTML}`);
  const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id);
  for (const id of ids.filter((id, index) => ids.indexOf(id) !== index)) wrong.push(`id twice: ${id}`);
  for (const element of document.querySelectorAll('[aria-labelledby], [aria-describedby]')) {
    const named = `${element.getAttribute('aria-labelledby') ?? ''} ${element.getAttribute('aria-describedby') ?? ''}`;
    for (const id of named.split(' ').filter(Boolean))
      if (!ids.includes(id)) wrong.push(`refers to #${id}, which is not there`);
  }
  const levels = visible('h1, h2, h3, h4').map(({ tagName }) => Number(tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) wrong.push('not exactly one h1');
  levels.forEach(
    (level, index) =>
      index > 0 && level > levels[index - 1] + 1 && wrong.push(`heading ${level} after ${levels[index - 1]}`),
  );
  for (const landmark of ['header', 'main', 'footer'])
    if (document.querySelectorAll(landmark).length !== 1) wrong.push(`not one ${landmark}`);
  return wrong;
}

/** Anything that sticks out of the window sideways. */
export function overflow() {
  const { clientWidth, scrollWidth } = document.documentElement;
  return scrollWidth > clientWidth ? [`the page is ${scrollWidth} pixels wide in a window of ${clientWidth}`] : [];
}
