import assert from 'node:assert/strict';
import { test } from 'node:test';

import { container, elements, outline } from './stub.mjs';
import { hostile } from './hostile.mjs';
import { MarkdownView, MAX_LENGTH, safeAddress } from '../page/markdown.js';

function render(text) {
  const node = container();
  new MarkdownView(node).show(text);
  return node;
}

test('blocks and inline marks become elements', async (t) => {
  const cases = {
    'plain': ['one\ntwo', 'p("one" br "two")'],
    'headings start below the page\'s own': ['# a\n\n###### b ##', 'h3("a") h6("b")'],
    'no heading without a space': ['#a', 'p("#a")'],
    'emphasis': ['*a* **b** ***c*** ~~d~~ __e__ _f_', 'p(em("a") " " strong("b") " " strong(em("c")) " " del("d") " " strong("e") " " em("f"))'],
    'emphasis that is not': ['2 * 3 * 4, snake_case_name, **open', 'p("2 * 3 * 4, snake_case_name, **open")'],
    'code': ['a `b **c**` ``d ` e``', 'p("a " code("b **c**") " " code("d ` e"))'],
    'fence': ['```go\na *b*\n```\nc', 'pre(code("a *b*")) p("c")'],
    'open fence, as while it streams': ['~~~\na', 'pre(code("a"))'],
    'lists': ['- a\n- b\n  - c\n\n3. d', 'ul(li("a") li("b" ul(li("c")))) ol(li("d"))'],
    'list with a paragraph': ['1. a\n\n   b\n2. c', 'ol(li("a" p("b")) li("c"))'],
    'quote': ['> a\n> > b', 'blockquote(p("a") blockquote(p("b")))'],
    'rule': ['a\n\n---\n***', 'p("a") hr hr'],
    'table': ['|a|b|\n|-|:-:|\n|1|2|3|\n|4|', 'div(table(thead(tr(th("a") th("b"))) tbody(tr(td("1") td("2")) tr(td("4")))))'],
    'escapes': ['\\*a\\* \\[b](https://x.test)', 'p("*a* [b](" a("https://x.test") ")")'],
    'link': ['[a *b*](https://x.test/y "title")', 'p(a("a " em("b")))'],
    'bare address': ['see https://x.test/a_b_c.', 'p("see " a("https://x.test/a_b_c") ".")'],
    'images are links': ['![alt](https://x.test/i.png)', 'p(a("alt"))'],
    'markup is text': ['<b onclick="x()">a</b>', 'p("<b onclick=\\"x()\\">a</b>")'],
  };
  for (const [name, [text, want]] of Object.entries(cases)) {
    await t.test(name, () => assert.equal(outline(render(text)), want));
  }
});

test('only absolute web and mail addresses are links', () => {
  assert.equal(safeAddress('https://x.test/a'), 'https://x.test/a');
  assert.equal(safeAddress('mailto:a@x.test'), 'mailto:a@x.test');
  const refused = ['javascript:alert(1)', 'JaVaScRiPt:alert(1)', 'java\nscript:alert(1)', ' javascript:alert(1)', '\u0001javascript:x', 'data:text/html,x', 'vbscript:x', 'file:///etc/passwd', 'blob:https://x.test/1', '/api/v1/chains', '//x.test', '#/chains', 'x', '', 'https://'];
  for (const address of refused) assert.equal(safeAddress(address), '', address);
});

test('hostile text makes no element, attribute or address outside the list', () => {
  const tags = new Set('p h3 h4 h5 h6 pre code blockquote ul ol li div table thead tbody tr th td hr br strong em del a'.split(' '));
  const attributes = new Set(['href', 'title', 'rel', 'target', 'class', 'start', 'data-language']);
  assert.ok(hostile.length >= 200, `${hostile.length} texts`);
  for (const text of hostile) {
    for (const element of elements(render(text))) {
      assert.ok(tags.has(element.tag), `${element.tag} from ${text}`);
      for (const name of element.attributes.keys()) assert.ok(attributes.has(name), `${name} from ${text}`);
      const href = element.attributes.get('href');
      if (element.tag === 'a') assert.match(href, /^(https?:\/\/|mailto:)/, text);
      const style = element.attributes.get('class');
      if (style) assert.match(style, /^(literal|table-frame|align-(center|end))$/, text);
    }
  }
});

test('letters and digits are never lost', () => {
  for (const text of hostile) {
    const words = render(text).textContent.replaceAll(/[^a-z0-9]/gi, '');
    // Addresses of links and names of fenced languages are attributes.
    if (text.includes('](') || /[`~]{3}/.test(text) || /^\s*(>|[-*+] )*\s*\d+[.)]/m.test(text)) continue;
    assert.equal(words, text.replaceAll(/[^a-z0-9]/gi, ''), text);
  }
});

test('any text takes about linear time', async (t) => {
  const size = 100_000;
  const seeds = ['[', '![', '[](', '[a](http:', '*', '**a', '_a ', '~~a', '`', '` `` ', '``a` ', '> ', '>', '- ', '  - a\n', '1. ', '#', '# a\n', '|', '|\n', '|a\n|-\n', '~~~', '~', '\\', 'http://', 'http://[', 'https://a.', '***a', '*a**b', '\n', ' ', '\t', '---', '- - ', '<', '&', '\u0000', '\ud800', '***__~~`'];
  for (const seed of seeds) {
    await t.test(JSON.stringify(seed), () => {
      const text = seed.repeat(Math.ceil(size / seed.length));
      for (const tail of ['', 'x`', '](x)']) {
        // Processor time, because a busy machine says nothing about this code. A
        // reader that goes back needs 10¹⁰ steps here, which is minutes.
        const before = process.cpuUsage();
        render(text + tail);
        const { user } = process.cpuUsage(before);
        assert.ok(user < 5_000_000, `took ${Math.round(user / 1000)} ms with ${JSON.stringify(tail)}`);
      }
    });
  }
});

test('growing text keeps the nodes of finished blocks and ends as if shown at once', () => {
  const text = '# A\n\none *two*\n\n- a\n- b\n\n```\ncode\n```\n\n|a|b|\n|-|-|\n|1|2|\n\nend';
  const node = container();
  const view = new MarkdownView(node);
  view.show('# A\n\none');
  const [heading] = node.childNodes;
  for (let i = 10; i <= text.length; i++) view.show(text.slice(0, i));
  assert.equal(node.childNodes[0], heading);
  assert.equal(outline(node), outline(render(text)));
  view.show('# B');
  assert.equal(outline(node), 'h3("B")');
});

test('very long text is shown as it is', () => {
  const text = '**a** '.repeat(MAX_LENGTH / 6 + 1);
  assert.equal(render(text).textContent, text);
  assert.equal(elements(render(text)).length, 1);
});
