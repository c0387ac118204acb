import { make } from './dom';

/** How long a button says what became of the copying. */
const SAID_MS = 2000;

/** A button that copies a text, and says so. */
export function copyButton(label: string, text: () => string, announce: (said: string) => void): HTMLButtonElement {
  const button = make('button', { type: 'button', class: 'button quiet small' }, label);
  copyOnClick(button, text, announce);
  return button;
}

/** Lets a button that is there already copy a text. */
export function copyOnClick(button: HTMLButtonElement, text: () => string, announce: (said: string) => void): void {
  const label = button.textContent ?? '';
  button.addEventListener('click', async () => {
    const said = await navigator.clipboard.writeText(text()).then(
      () => 'Copied',
      () => 'The browser refused to copy',
    );
    button.textContent = said;
    announce(said);
    setTimeout(() => (button.textContent = label), SAID_MS);
  });
}
