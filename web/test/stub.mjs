// As much of the DOM as markdown.js uses, and nothing that parses markup.

class Node {
  childNodes = [];
  parent = null;

  append(...children) {
    for (const child of children) {
      const node = typeof child === 'string' ? new Text(child) : child;
      node.parent = this;
      this.childNodes.push(node);
    }
  }

  remove() {
    this.parent.childNodes.splice(this.parent.childNodes.indexOf(this), 1);
  }

  get lastChild() {
    return this.childNodes.at(-1);
  }

  get textContent() {
    return this.childNodes.map((child) => child.textContent).join('');
  }
}

class Text extends Node {
  constructor(text) {
    super();
    this.text = text;
  }

  get textContent() {
    return this.text;
  }
}

class Element extends Node {
  attributes = new Map();

  constructor(tag) {
    super();
    this.tag = tag;
  }

  setAttribute(name, value) {
    this.attributes.set(name, value);
  }

  set className(value) {
    this.attributes.set('class', value);
  }

  set innerHTML(value) {
    throw new Error(`innerHTML was set to ${value}`);
  }
}

globalThis.document = {
  createElement: (tag) => new Element(tag),
  createTextNode: (text) => new Text(text),
};

/** A new empty element. */
export const container = () => new Element('div');

/** Every element below a node. */
export function elements(node) {
  return node.childNodes.flatMap((child) => (child instanceof Element ? [child, ...elements(child)] : []));
}

/** The nodes below a node as a short text: p("a", strong("b")). */
export function outline(node) {
  return node.childNodes
    .map((child) => {
      if (child instanceof Text) return JSON.stringify(child.textContent);
      const inner = outline(child);
      return inner ? `${child.tag}(${inner})` : child.tag;
    })
    .join(' ');
}
