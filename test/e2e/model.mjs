// A model that writes what a test tells it to, when the test tells it to.

import { once } from 'node:events';
import { createServer } from 'node:http';

/** An OpenAI-compatible server; each call of it waits for the test. */
export class Model {
  url = '';
  #listener;
  #calls = [];
  #waiting = [];

  static async start() {
    const model = new Model();
    model.#listener = createServer((request, response) => model.#serve(request, response));
    model.#listener.listen(0, '127.0.0.1');
    await once(model.#listener, 'listening');
    model.url = `http://127.0.0.1:${model.#listener.address().port}/v1`;
    return model;
  }

  async #serve(request, response) {
    let body = '';
    for await (const piece of request.setEncoding('utf8')) body += piece;
    if (request.url.endsWith('/embeddings')) {
      response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(embeddings(JSON.parse(body))));
      return;
    }
    const call = new Call(JSON.parse(body), response);
    const taker = this.#waiting.shift();
    if (taker) taker(call);
    else this.#calls.push(call);
  }

  /** The next call that has not been taken. */
  async next() {
    return this.#calls.shift() ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  async stop() {
    this.#listener.close();
    this.#listener.closeAllConnections();
    await once(this.#listener, 'close');
  }
}

/** The vector that the model gives to a text: exact in 32 bits. */
export const vector = (text, dimensions = 4) => Array.from({ length: dimensions }, (_, i) => (text.length + i) / 8);

const embeddings = ({ model, input, dimensions }) => ({
  object: 'list',
  model,
  data: [input].flat().map((text, index) => ({ object: 'embedding', index, embedding: vector(text, dimensions) })),
  usage: { prompt_tokens: 5, total_tokens: 5 },
});

/** One call of the model. */
class Call {
  #response;

  constructor(request, response) {
    this.request = request;
    this.prompt = request.messages.at(-1).content;
    this.#response = response;
    /** Resolves when the caller has closed the connection before the answer was over. */
    this.gone = new Promise((resolve) => response.on('close', () => response.writableFinished || resolve()));
  }

  /** Refuses the call. */
  refuse(status, error) {
    this.#response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify({ error }));
  }

  /** Asks for a tool and ends the answer. */
  ask(id, name, args) {
    this.#send({ choices: [{ index: 0, delta: { tool_calls: [{ index: 0, id, type: 'function', function: { name, arguments: JSON.stringify(args) } }] } }] });
    this.end('tool_calls');
  }

  /** Reports an error in the middle of the answer. */
  break(error) {
    this.#send({ error });
    this.#response.end();
  }

  /** Streams a piece of text. */
  write(content) {
    this.#send({ choices: [{ index: 0, delta: { content } }] });
  }

  /** Ends the answer in good order. */
  end(reason = 'stop') {
    this.#send({ choices: [{ index: 0, delta: {}, finish_reason: reason }], usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 } });
    this.#response.end('data: [DONE]\n\n');
  }

  #send(chunk) {
    if (!this.#response.headersSent) this.#response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    this.#response.write(`data: ${JSON.stringify(chunk)}\n\n`);
  }
}
