// The real program as a child process, for the tests of this folder.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const READY_WITHIN = 60_000;

/** A running server with a database of its own. */
export class Server {
  url = '';
  #child;
  #dir;
  #log = '';

  /**
   * Starts the program of CHAINSTREAM_BINARY with further arguments and
   * variables of the environment; resolves when it is ready.
   */
  static async start(args, env = {}, addr = '127.0.0.1:0') {
    const binary = process.env.CHAINSTREAM_BINARY;
    if (!binary) throw new Error('CHAINSTREAM_BINARY does not name the program to test: run make e2e, which builds and names it');
    const server = new Server();
    server.#dir = await mkdtemp(join(tmpdir(), 'chainstream-e2e-'));
    await chmod(server.#dir, 0o755); // PostgreSQL runs under an account of its own where we are root
    const { PATH, HOME, TMPDIR = '/tmp' } = process.env;
    server.#child = spawn(binary, ['serve', '--addr', addr, '--log-format', 'json', '--no-example-docs', '--data-dir', join(server.#dir, 'data'), ...args], {
      env: { PATH, HOME, TMPDIR, ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    try {
      await server.#ready();
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  #ready() {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`the server is not ready in time:\n${this.#log}`)), READY_WITHIN);
      this.#child.once('error', reject);
      this.#child.once('exit', (code) => reject(new Error(`the server ended with code ${code}:\n${this.#log}`)));
      this.#child.stderr.setEncoding('utf8').on('data', (text) => {
        this.#log += text;
        const line = this.#log.split('\n').find((entry) => entry.includes('"msg":"server ready"') && entry.endsWith('}'));
        if (this.url || !line) return;
        clearTimeout(timer);
        this.url = JSON.parse(line).url;
        resolve();
      });
    });
  }

  /** Its address, for one that takes its place. */
  get addr() {
    return new URL(this.url).host;
  }

  get pid() {
    return this.#child.pid;
  }

  /** The address of its own database, for other servers. */
  async databaseURL() {
    const read = async (name) => (await readFile(join(this.#dir, 'data', 'postgres', name), 'utf8')).trim();
    return `postgres://chainstream:${await read('password')}@127.0.0.1:${await read('port')}/chainstream`;
  }

  /** The one value that a statement answers, from its own database. */
  async value(sql) {
    const args = ['psql', '--data-dir', join(this.#dir, 'data'), '-c', sql, '--', '--no-align', '--tuples-only'];
    return (await promisify(execFile)(process.env.CHAINSTREAM_BINARY, args)).stdout.trim();
  }

  /** Stops the server, by default the polite way, and answers its exit code. */
  async stop(signal = 'SIGTERM') {
    const child = this.#child;
    let code = child.exitCode;
    if (code === null && child.signalCode === null && child.pid !== undefined) {
      const exited = once(child, 'exit');
      child.kill(signal);
      [code] = await exited;
    }
    await rm(this.#dir, { recursive: true, force: true });
    return code;
  }

  /** Sends a request with a JSON body and answers what came back. */
  async call(method, path, body) {
    const response = await fetch(this.url + path, {
      method,
      headers: body ? { 'Content-Type': 'application/json' } : {},
      body: body && JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  /** Starts an execution and answers its id. */
  async trigger(chain, inputs) {
    const { executionId } = await this.call('POST', '/api/v1/executions', { chain, inputs });
    return executionId;
  }

  /** The execution as the API has it. */
  execution(id) {
    return this.call('GET', `/api/v1/executions/${id}`);
  }

  /** The stored log of an execution, a line of text per event. */
  async log(id) {
    const response = await fetch(`${this.url}/api/v1/executions/${id}/events`, { headers: { Accept: 'application/x-ndjson' } });
    if (!response.ok) throw new Error(`log of execution ${id}: ${response.status}`);
    return (await response.text()).split('\n').filter((line) => line !== '');
  }
}

/** An event as a line of the stored log. */
export const asLine = ({ id, type, data }) => `{"id": ${id}, "event": "${type}", "data": ${data}}`;
