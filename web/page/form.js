// A form made from a list of inputs, such as those of a chain.
//
// The server alone decides what is valid; the form shows its problems at the
// fields they point to. It checks by itself only what cannot be sent at all.

import { copyButton, h } from './dom.js';
import { count } from './format.js';

/**
 * Builds the fields of inputs. values, by input name, go before the defaults.
 * root is where the server's problems point to them, prefix begins the ids of
 * the controls. The result has:
 * - fields: the nodes, in the order of the chain
 * - read(): the values to send, or null after a problem was shown
 * - showProblems(errors): shows [{pointer, detail}] at the fields, moves the
 *   focus to the first, and returns those that belong to no field
 * - clear(): removes all problems
 */
export function inputForm(inputs, values = {}, { root = '/inputs', prefix = 'input' } = {}) {
  const fields = inputList(inputs).map((input) => field(input, values[input.name] ?? input.default, prefix));
  const byName = new Map(fields.map((f) => [f.input.name, f]));

  function clear() {
    for (const f of fields) f.problem('');
  }

  function showProblems(errors) {
    clear();
    const texts = new Map();
    const others = [];
    for (const { pointer, detail } of errors) {
      const name = inputOf(pointer, root);
      if (byName.has(name)) texts.set(name, [...(texts.get(name) ?? []), detail]);
      else others.push({ pointer, detail });
    }
    for (const [name, details] of texts) byName.get(name).problem(details.join('. '));
    const first = fields.find((f) => texts.has(f.input.name));
    const closed = first?.node.closest('details');
    if (closed) closed.open = true;
    first?.focus();
    return others;
  }

  function read() {
    clear();
    const result = {};
    const errors = [];
    for (const f of fields) {
      try {
        const value = f.read();
        if (value !== undefined) result[f.input.name] = value;
      } catch (error) {
        errors.push({ pointer: `${root}/${f.input.name}`, detail: error.message });
      }
    }
    if (errors.length === 0) return result;
    showProblems(errors);
    return null;
  }

  return { fields: fields.map((f) => f.node), read, showProblems, clear };
}

/** The inputs of a chain as a list, whether keyed by name or already one. */
export function inputList(inputs) {
  if (Array.isArray(inputs)) return inputs;
  return Object.entries(inputs ?? {}).map(([name, input]) => ({ ...input, name }));
}

/** The input below root that a JSON pointer such as /inputs/topic/0 names, else ''. */
export function inputOf(pointer, root = '/inputs') {
  const text = String(pointer ?? '');
  if (!text.startsWith(`${root}/`)) return '';
  const [name] = text.slice(root.length + 1).split('/');
  return name.replaceAll('~1', '/').replaceAll('~0', '~');
}

const optionsOf = (input) =>
  (input.options ?? []).map((option) =>
    typeof option === 'object' && option !== null ? { ...option, label: option.label ?? option.value } : { value: option, label: String(option) },
  );

const CONTROLS = {
  short_text: (input, id, value) => textControl(h('input', { type: 'text', autocomplete: 'off' }), input, value),
  long_text: (input, id, value) => textControl(h('textarea', { rows: 5 }), input, value),
  number: numberControl,
  boolean: booleanControl,
  select: selectControl,
  multi_select: multiSelectControl,
  json: jsonControl,
  file: fileControl,
};

function field(input, value, prefix) {
  const id = `${prefix}-${input.name}`;
  const control = (CONTROLS[input.type] ?? CONTROLS.long_text)(input, id, value);
  const label = input.label || input.name;
  const hintText = [input.description, control.hint].filter(Boolean).join(' · ');
  const hint = hintText ? h('p', { class: 'hint', id: `${id}-hint` }, hintText) : null;
  const problem = h('p', { class: 'problem', id: `${id}-problem`, data: { testid: 'field-problem', input: input.name } });
  const described = `${hint ? `${id}-hint ` : ''}${id}-problem`;
  // A list in which something is chosen cannot be left empty.
  const mark = input.required && !(input.type === 'select' && value != null) ? h('span', { class: 'required' }, 'required') : null;

  if (!control.group) {
    control.node.id = id;
    control.node.name = input.name;
    if (input.required && input.type !== 'boolean') control.node.setAttribute('aria-required', 'true');
    if (input.placeholder && 'placeholder' in control.node) control.node.placeholder = input.placeholder;
  }
  control.node.setAttribute('aria-describedby', described);

  const data = { testid: 'field', input: input.name };
  let node;
  if (control.group) {
    node = h('fieldset', { class: 'field', data }, h('legend', { class: 'label' }, label, ' ', mark), control.node, hint, problem);
  } else if (input.type === 'boolean') {
    node = h('div', { class: 'field', data }, h('label', { class: 'check', for: id }, control.node, h('span', null, label)), hint, problem);
  } else {
    node = h('div', { class: 'field', data }, h('label', { class: 'label', for: id }, label, ' ', mark), control.frame ?? control.node, hint, problem);
  }

  return {
    input,
    node,
    read: control.read,
    focus: () => (control.group ? control.node.querySelector('input') : control.node)?.focus(),
    problem(text) {
      // "is missing" is said of the field.
      problem.textContent = /^(is|must|may|needs|goes) /.test(text) ? `${label} ${text}` : text;
      node.classList.toggle('invalid', text !== '');
      if (text) control.node.setAttribute('aria-invalid', 'true');
      else control.node.removeAttribute('aria-invalid');
    },
  };
}

function textControl(node, input, value) {
  if (value != null) node.value = String(value);
  return {
    node,
    hint: input.maxLength ? `at most ${count(input.maxLength)} characters` : '',
    // An emptied default is a value; without one, empty means not given.
    read: () => (node.value === '' && input.default == null ? undefined : node.value),
  };
}

function numberControl(input, id, value) {
  const node = h('input', { type: 'text', inputmode: 'decimal', autocomplete: 'off', class: 'narrow' });
  if (value != null) node.value = String(value);
  const { min, max } = input;
  let hint = '';
  if (min != null && max != null) hint = `${min} to ${max}`;
  else if (min != null) hint = `at least ${min}`;
  else if (max != null) hint = `at most ${max}`;
  return {
    node,
    hint,
    read() {
      const text = node.value.trim();
      if (text === '') return undefined;
      const number = Number(text);
      if (!Number.isFinite(number)) throw new Error('must be a number');
      return number;
    },
  };
}

function booleanControl(input, id, value) {
  const node = h('input', { type: 'checkbox' });
  node.checked = value === true;
  return { node, read: () => node.checked };
}

function selectControl(input, id, value) {
  const options = optionsOf(input);
  const chosen = options.findIndex((option) => option.value === value);
  const groups = new Map([['', []]]);
  options.forEach((option, index) => {
    const { group = '' } = option;
    groups.set(group, [...(groups.get(group) ?? []), h('option', { value: index }, option.label)]);
  });
  const node = h(
    'select',
    { class: 'narrow' },
    chosen === -1 || !input.required ? h('option', { value: '' }, input.none ?? '–') : null,
    [...groups].map(([label, nodes]) => (label ? h('optgroup', { label }, nodes) : nodes)),
  );
  node.value = chosen === -1 ? '' : String(chosen);
  return { node, read: () => (node.value === '' ? undefined : options[Number(node.value)].value) };
}

function multiSelectControl(input, id, value) {
  const chosen = Array.isArray(value) ? value : [];
  const boxes = optionsOf(input).map((option, index) => {
    const box = h('input', { type: 'checkbox', id: `${id}-${index}`, name: input.name });
    box.checked = chosen.includes(option.value);
    return { box, value: option.value, node: h('label', { class: 'check', for: `${id}-${index}` }, box, h('span', null, option.label)) };
  });
  const { minSelections: min, maxSelections: max } = input;
  let hint = '';
  if (min && max) hint = min === max ? `choose ${min}` : `choose ${min} to ${max}`;
  else if (min) hint = `choose at least ${min}`;
  else if (max) hint = `choose at most ${max}`;
  return {
    group: true,
    node: h('div', { class: 'checks' }, boxes.map((b) => b.node)),
    hint,
    read() {
      const values = boxes.filter((b) => b.box.checked).map((b) => b.value);
      return values.length === 0 && input.default == null ? undefined : values;
    },
  };
}

function jsonControl(input, id, value) {
  const node = h('textarea', { rows: 5, class: 'mono', spellcheck: 'false' });
  if (value != null) node.value = JSON.stringify(value, null, 2);
  return {
    node,
    hint: 'JSON',
    read() {
      if (node.value.trim() === '') return undefined;
      try {
        return JSON.parse(node.value);
      } catch {
        throw new Error('must be valid JSON');
      }
    },
  };
}

// A file is sent as its text, which stays editable, and can be typed as well, or,
// when it is no text, as its bytes: whether the chain takes an image there is for
// the server to say.
function fileControl(input, id, value) {
  const node = h('textarea', { rows: 5, class: 'mono', spellcheck: 'false', placeholder: 'The text of a file' });
  let image = null;
  const keep = (file) => {
    image = file;
    node.value = file ? imageText(file) : node.value;
    node.readOnly = Boolean(file);
  };
  if (value?.base64) keep(value);
  else if (value != null) node.value = String(value.text ?? value);
  const picker = h('input', { type: 'file', 'aria-label': `Choose a file for ${input.label || input.name}` });
  let unreadable = '';
  picker.addEventListener('change', async () => {
    const [file] = picker.files;
    if (!file) {
      if (image) node.value = '';
      keep(null);
      return;
    }
    unreadable = '';
    keep(null);
    try {
      if (file.type.startsWith('image/')) {
        keep({ name: file.name, base64: await base64(file) });
        return;
      }
      const bytes = await file.arrayBuffer();
      node.value = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch {
      node.value = '';
      unreadable = `${file.name} is neither a text file in UTF-8 nor an image`;
    }
  });
  node.addEventListener('input', () => {
    unreadable = '';
  });
  return {
    node,
    frame: h('div', { class: 'file' }, picker, node),
    hint: input.maxLength ? `at most ${count(input.maxLength)} characters` : '',
    read() {
      if (unreadable) throw new Error(unreadable);
      if (image) return image;
      return node.value === '' && input.default == null ? undefined : node.value;
    },
  };
}

/** The bytes of a file in base64. */
function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(',') + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** An image in words: nobody reads its bytes. */
function imageText(image) {
  return `${image.name ?? 'image'} (${count(Math.floor((image.base64.length * 3) / 4))} bytes)`;
}

/** What an execution was given, as a definition list with copy buttons. */
export function inputValues(inputs) {
  const entries = Object.entries(inputs ?? {});
  if (entries.length === 0) return h('p', { class: 'muted' }, 'No inputs.');
  return h(
    'dl',
    { class: 'values' },
    entries.map(([name, value]) => {
      const text = typeof value === 'string' ? value : value?.base64 ? imageText(value) : JSON.stringify(value, null, 2);
      return [h('dt', null, name), h('dd', null, h('span', { class: 'literal' }, text), copyButton(`Copy ${name}`, () => text))];
    }),
  );
}
