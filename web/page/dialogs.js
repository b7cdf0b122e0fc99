// Dialogs that ask: for a yes, or for the fields of a small form. They are the
// browser's own, so that Escape closes them and the focus goes back.

import { announce, errorPanel, h } from './dom.js';
import { inputForm } from './form.js';

let last = 0;

/** Asks for a yes. Resolves to true for it, and to false however else the dialog closes. */
export function confirmDialog(view, { title, text, no = 'Keep', yes }) {
  const id = `dialog-${++last}`;
  const dialog = h(
    'dialog',
    { 'aria-labelledby': id },
    h('h2', { id }, title),
    h('p', { class: 'dialog-text' }, text),
    h(
      'form',
      { method: 'dialog', class: 'actions' },
      h('button', { class: 'button', value: 'no', autofocus: true }, no),
      h('button', { class: 'button danger', value: 'yes', data: { testid: 'confirm-yes' } }, yes),
    ),
  );
  return open(view, dialog).then(() => dialog.returnValue === 'yes');
}

/**
 * Asks for the values of inputs and gives them to send, whose problems are shown
 * at the fields. Inputs with more: true stand under "More". Resolves to what send
 * answers, or to null when the dialog is closed before.
 */
export function formDialog(view, { title, lead, inputs, values = {}, submit, send, testid }) {
  const id = `dialog-${++last}`;
  const form = inputForm(inputs, values, { root: '', prefix: id });
  const more = form.fields.filter((node, index) => inputs[index].more);
  const problems = h('div', { class: 'form-problems' });
  const button = h('button', { class: 'button primary', type: 'submit', data: { testid: 'dialog-submit' } }, submit);
  let answer = null;
  const dialog = h(
    'dialog',
    { class: 'dialog-form', 'aria-labelledby': id, data: { testid } },
    h('h2', { id }, title),
    lead && h('p', { class: 'lead' }, lead),
    h(
      'form',
      { novalidate: true, class: 'form', on: { submit: onSubmit } },
      form.fields.filter((node) => !more.includes(node)),
      more.length > 0 && h('details', { class: 'more' }, h('summary', null, 'More'), h('div', { class: 'form' }, more)),
      problems,
      h('div', { class: 'actions' }, h('button', { class: 'button', type: 'button', on: { click: () => dialog.close() } }, 'Cancel'), button),
    ),
  );

  async function onSubmit(event) {
    event.preventDefault();
    problems.replaceChildren();
    const given = form.read();
    if (!given || button.disabled) return;
    button.disabled = true;
    try {
      answer = await send(given);
      dialog.close();
    } catch (error) {
      announce(error.message);
      const others = form.showProblems(error.errors ?? []);
      const atFields = (error.errors?.length ?? 0) > others.length;
      if (!atFields || others.length > 0) {
        problems.replaceChildren(errorPanel(error), others.length > 0 && h('ul', { class: 'problems' }, others.map((o) => h('li', null, h('code', null, o.pointer), ` ${o.detail}`))));
      }
    } finally {
      button.disabled = false;
    }
  }

  return open(view, dialog).then(() => answer);
}

function open(view, dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve();
    });
    // Whoever leaves the page has not said yes.
    view.onLeave(() => dialog.close());
  });
}
