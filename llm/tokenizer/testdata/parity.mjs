// Writes parity.json: the texts of the parity test and what OpenAI's tokenizers,
// as npm's gpt-tokenizer has them, make of them. In this folder:
//
//   npm install --prefix parity gpt-tokenizer@4.0.0
//   NODE_PATH=$PWD/parity/node_modules node parity.mjs > parity.json
import { createRequire } from 'node:module';

const require = createRequire(process.env.NODE_PATH + '/');
const encodings = {
  o200k_base: require('gpt-tokenizer/encoding/o200k_base'),
  cl100k_base: require('gpt-tokenizer/encoding/cl100k_base'),
};
const texts = {
  empty: '',
  word: 'tokens',
  prose: 'It was the third of May, and the river – wide, brown, slow – hadn\'t yet reached the WALL. "We\'ll see," she said; they didn\'t.',
  code: 'func main() {\n\tfor i := range 10 {\n\t\tif x[i] != nil && !done {\n\t\t\tfmt.Printf("%d\\t%v\\n", i, x[i])\n\t\t}\n\t}\n}\n\n\n// TODO\r\n',
  json: '{"id": 12345, "tags": ["a", "b"], "price": 0.0000125, "nested": {"ok": true, "none": null}}',
  chinese: '人工智能正在改变世界。请用三句话概括下面的文章，并给出一个标题！',
  japanese: '河口デルタは、川が運んだ土砂が堆積してできた地形です。カタカナとひらがな。',
  korean: '강 하구의 삼각주는 퇴적물로 만들어진다.',
  emoji: 'Done 🎉🎉 👩‍👩‍👧‍👦 and 🇩🇪 flags, é vs e\u0301, ☃️…',
  russian: 'Дельта реки образуется там, где течение замедляется.',
  arabic: 'الدلتا هي أرض تتكون عند مصب النهر.',
  hindi: 'नदी का डेल्टा मुहाने पर बनता है।',
  numbers: '1 12 123 1234 12345678901234567890 3.14159 0x7FFF 1e-9 २०२६',
  spaces: '  leading, double  inner,\ttab,   \n   \n\n trailing   ',
  special: 'text <|endoftext|> more <|im_start|>user',
  base64: 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  control: 'a\x7fb\x7f\x7f \x00\x01 \x1f c',
  roles: 'system user assistant tool developer',
};
const cases = Object.entries(texts).map(([name, text]) => ({
  name,
  text,
  tokens: Object.fromEntries(
    // A special token in a text is text.
    Object.entries(encodings).map(([encoding, e]) => [encoding, e.encode(text, { disallowedSpecial: new Set() })]),
  ),
}));
console.log('[\n' + cases.map((c) => JSON.stringify(c)).join(',\n') + '\n]');
