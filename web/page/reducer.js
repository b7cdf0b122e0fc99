// The state of one execution as a fold over its events.
//
// reduce is the only code that gives events a meaning: the live stream, the
// replay of a finished execution and the scrubber all go through it, so they
// cannot disagree. It knows neither the DOM nor the network nor the clock.
//
// A state is changed in place and returned: an execution has thousands of
// events, and copying the state for each would make a replay quadratic. The
// same events in the same order always give an equal state.

/** Every event name of the protocol; EventSource wants one listener for each. */
export const EVENT_TYPES = [
  'execution-start', 'execution-complete', 'execution-error', 'progress',
  'prompt-start', 'prompt-delta', 'reasoning-delta', 'prompt-retry', 'prompt-complete', 'prompt-error',
  'knowledge-retrieval-start', 'knowledge-retrieved', 'variable-substitution',
  'tool-execution-start', 'tool-execution-complete',
  'approval-requested', 'approval-resolved',
  'llm-request', 'llm-response', 'llm-error', 'cache-hit', 'cache-miss',
];

const TERMINAL = new Set(['execution-complete', 'execution-error']);

/** Reports whether an event of this type is the last of its execution. */
export const isTerminal = (type) => TERMINAL.has(type);

/** The state before the first event. */
export function initial() {
  return {
    status: 'queued',
    chain: '',
    chainVersion: 0,
    totalPrompts: 0,
    lineage: null,
    reusedTokens: 0,
    prompts: new Map(),
    progress: { percentage: 0, step: 0, total: 0, message: '' },
    startedAt: '',
    wakeAt: '',
    finishedAt: '',
    duration: null,
    totalTokens: null,
    costUsd: null,
    error: null,
    lastSeq: 0,
    ended: false,
    events: [],
  };
}

/**
 * Adds prompts that are known from the chain but have no event yet, so that
 * the page can show what is still to come. Events always win over the plan.
 */
export function plan(state, prompts) {
  for (const p of prompts) {
    const id = p.promptId ?? p.id;
    if (id == null) continue;
    const prompt = promptOf(state, id);
    if (prompt.attempt > 0) continue;
    prompt.name = p.name ?? prompt.name;
    prompt.position = p.position ?? prompt.position;
    prompt.model = p.modelId ?? p.model ?? prompt.model;
    if (state.ended) prompt.state = 'skipped';
  }
  return state;
}

/**
 * Folds one event {seq, type, data} into the state. An event whose seq was
 * already folded changes nothing: a stream may send one twice when it resumes.
 */
export function reduce(state, event) {
  if (event.seq <= state.lastSeq || state.ended) return state;
  state.lastSeq = event.seq;
  state.events.push(event);
  HANDLERS[event.type]?.(state, event.data);
  return state;
}

/** Folds a list of events into a fresh state that starts from the same plan. */
export function fold(events, planned = []) {
  const state = plan(initial(), planned);
  for (const event of events) reduce(state, event);
  return state;
}

/**
 * Fills in from the stored results what an ended log does not say any more:
 * the text of prompts whose deltas were folded away and, when removed is true,
 * everything.
 */
export function restore(state, execution, removed) {
  if (removed) {
    Object.assign(state, {
      status: execution.status,
      ended: true,
      chain: execution.chainName,
      chainVersion: execution.chainVersion,
      totalPrompts: execution.totalPrompts,
      startedAt: execution.startedAt ?? '',
      finishedAt: execution.finishedAt ?? '',
      duration: elapsedBetween(execution.startedAt, execution.finishedAt),
      totalTokens: execution.usage?.totalTokens ?? null,
      costUsd: execution.costUsd ?? null,
      error: execution.error,
    });
  }
  for (const stored of execution.prompts ?? []) {
    const prompt = promptOf(state, stored.promptId);
    if (removed) {
      prompt.state = stored.status === 'pending' ? 'skipped' : stored.status;
      Object.assign(prompt, {
        name: stored.name,
        position: stored.position,
        model: stored.modelId,
        attempt: stored.attempt,
        duration: stored.durationMs,
        inputTokens: stored.inputTokens,
        outputTokens: stored.outputTokens,
        error: stored.error,
      });
    }
    if (removed || prompt.text.length < stored.output.length) {
      prompt.text = stored.output;
      prompt.truncated = false;
    }
  }
  return state;
}

/** Prompts by position, then in the order in which they became known. */
export function groups(state) {
  const byPosition = new Map();
  for (const prompt of state.prompts.values()) {
    if (!byPosition.has(prompt.position)) byPosition.set(prompt.position, []);
    byPosition.get(prompt.position).push(prompt);
  }
  return [...byPosition].sort(([a], [b]) => a - b).map(([position, prompts]) => ({ position, prompts }));
}

/**
 * Tokens so far: the total that the log states once it has ended well, until
 * then the sum over the prompts. estimated is true when a provider did not
 * report its usage and the count is a guess.
 */
export function tokens(state) {
  let sum = 0;
  let estimated = false;
  for (const prompt of state.prompts.values()) {
    sum += prompt.inputTokens + prompt.outputTokens;
    estimated ||= prompt.estimated;
  }
  return { total: state.totalTokens ?? sum, estimated };
}

/** Reports whether a model id names the built-in demo model. */
export const isDemoModel = (model) => typeof model === 'string' && model.startsWith('offline/');

function promptOf(state, id) {
  let prompt = state.prompts.get(id);
  if (!prompt) {
    prompt = {
      id,
      name: `Prompt ${id}`,
      position: 1,
      model: '',
      state: 'queued',
      attempt: 0,
      text: '',
      reasoning: '',
      truncated: false,
      startedAt: '',
      duration: null,
      inputTokens: 0,
      outputTokens: 0,
      estimated: false,
      cached: false,
      reusedFrom: null,
      finishReason: '',
      error: null,
      retries: [],
      variables: null,
      retrieval: null,
      tools: [],
    };
    state.prompts.set(id, prompt);
  }
  return prompt;
}

// Everything a new attempt makes void. What earlier attempts cost stays.
function startAttempt(prompt, attempt) {
  prompt.attempt = attempt;
  prompt.text = '';
  prompt.reasoning = '';
  prompt.truncated = false;
  prompt.error = null;
  prompt.retrieval = null;
  prompt.tools = [];
}

function appendDelta(state, data, field) {
  const prompt = promptOf(state, data.promptId);
  if (data.attempt < prompt.attempt) return;
  if (data.attempt > prompt.attempt) startAttempt(prompt, data.attempt);
  prompt.state = 'running';
  prompt[field] += data.text;
}

// The calls of a prompt are summed until prompt-complete states its total.
function addUsage(state, data) {
  const prompt = promptOf(state, data.promptId);
  const used = (data.inputTokens ?? 0) + (data.outputTokens ?? 0);
  prompt.inputTokens += data.inputTokens ?? 0;
  prompt.outputTokens += data.outputTokens ?? 0;
  prompt.estimated ||= used > 0 && data.usageSource === 'estimated';
}

function finish(state, data, status, rest) {
  state.status = status;
  state.ended = true;
  state.wakeAt = '';
  state.finishedAt = data.timestamp;
  state.duration = data.duration ?? elapsedBetween(state.startedAt, data.timestamp);
  for (const prompt of state.prompts.values()) {
    if (prompt.state === 'queued') prompt.state = 'skipped';
    if (prompt.state === 'running' || prompt.state === 'retrying') {
      prompt.state = rest;
      prompt.duration ??= elapsedBetween(prompt.startedAt, data.timestamp);
    }
  }
}

// A wait that is longer than this holds no worker: the execution is put down.
const LONG_WAIT = 60_000;

// Whether an execution that has not ended waits for a time, and for which.
function settle(state) {
  if (state.status !== 'running' && state.status !== 'waiting') return;
  const prompts = [...state.prompts.values()];
  const waits = prompts.filter((prompt) => prompt.state === 'retrying' && prompt.retries.at(-1)?.until);
  state.wakeAt = waits.map((prompt) => prompt.retries.at(-1).until).sort()[0] ?? '';
  const busy = prompts.some((prompt) => prompt.state === 'running' || (prompt.state === 'retrying' && !waits.includes(prompt)));
  state.status = waits.length > 0 && !busy ? 'waiting' : 'running';
}

function elapsedBetween(from, to) {
  const ms = Date.parse(to) - Date.parse(from);
  return Number.isFinite(ms) ? Math.max(0, ms) : null;
}

const HANDLERS = {
  'execution-start'(state, data) {
    state.status = 'running';
    state.chain = data.toolName;
    state.chainVersion = data.chainVersion ?? 0;
    state.totalPrompts = data.totalPrompts;
    state.startedAt = data.timestamp;
    if (data.parentExecutionId) state.lineage = { parent: data.parentExecutionId, origin: data.origin, from: data.fromPrompt ?? '' };
  },

  'prompt-start'(state, data) {
    const prompt = promptOf(state, data.promptId);
    const attempt = data.attempt ?? 1;
    if (attempt > prompt.attempt) startAttempt(prompt, attempt);
    prompt.name = data.promptName;
    prompt.position = data.position;
    prompt.model = data.modelId;
    prompt.state = 'running';
    prompt.reusedFrom = data.reusedFrom?.executionId ?? null;
    prompt.startedAt ||= data.timestamp;
    settle(state);
  },

  'prompt-delta'(state, data) {
    appendDelta(state, data, 'text');
  },

  'reasoning-delta'(state, data) {
    appendDelta(state, data, 'reasoning');
  },

  'prompt-retry'(state, data) {
    const prompt = promptOf(state, data.promptId);
    if (data.attempt > prompt.attempt) startAttempt(prompt, data.attempt);
    prompt.state = 'retrying';
    const retry = { attempt: data.attempt, reason: data.reason, delay: data.delay ?? 0 };
    if (retry.delay > LONG_WAIT && data.timestamp) retry.until = new Date(Date.parse(data.timestamp) + retry.delay).toISOString();
    prompt.retries.push(retry);
    settle(state);
  },

  'prompt-complete'(state, data) {
    const prompt = promptOf(state, data.promptId);
    const attempt = data.attempt ?? (prompt.attempt || 1);
    if (attempt > prompt.attempt) startAttempt(prompt, attempt);
    prompt.state = 'completed';
    prompt.duration = data.duration;
    prompt.inputTokens = data.inputTokens ?? prompt.inputTokens;
    prompt.outputTokens = data.outputTokens ?? prompt.outputTokens;
    prompt.cached = data.cached === true;
    prompt.reusedFrom = data.reusedFrom?.executionId ?? null;
    state.reusedTokens += (data.reusedFrom?.inputTokens ?? 0) + (data.reusedFrom?.outputTokens ?? 0);
    prompt.finishReason = data.finishReason ?? '';
    prompt.model = data.modelId ?? prompt.model;
    // The whole output is the authority over the deltas. A cut one is not,
    // unless retention has folded the deltas away.
    if (!data.truncated) prompt.text = data.output ?? prompt.text;
    else if (prompt.text.length < (data.output ?? '').length) {
      prompt.text = data.output;
      prompt.truncated = true;
    }
    settle(state);
  },

  'prompt-error'(state, data) {
    const prompt = promptOf(state, data.promptId);
    prompt.state = data.code === 'cancelled' ? 'cancelled' : 'failed';
    prompt.error = { message: data.error, code: data.code ?? '' };
    prompt.duration = data.duration ?? elapsedBetween(prompt.startedAt, data.timestamp);
    settle(state);
  },

  'knowledge-retrieval-start'(state, data) {
    promptOf(state, data.promptId).retrieval = { done: false, searchType: data.searchType };
  },

  'knowledge-retrieved'(state, data) {
    const prompt = promptOf(state, data.promptId);
    prompt.retrieval = {
      ...prompt.retrieval,
      done: true,
      documents: data.documentsFound,
      score: data.relevanceScore,
      tokens: data.tokens,
      error: data.error ?? '',
      chunks: data.chunks ?? [],
      cut: data.cut ?? [],
    };
  },

  'variable-substitution'(state, data) {
    promptOf(state, data.promptId).variables = data.variables ?? {};
  },

  'tool-execution-start'(state, data) {
    promptOf(state, data.promptId).tools.push({ id: data.toolCallId, name: data.toolName, done: false });
  },

  'tool-execution-complete'(state, data) {
    const { tools } = promptOf(state, data.promptId);
    let tool = tools.find((t) => t.id === data.toolCallId && !t.done);
    if (!tool) {
      tool = { id: data.toolCallId, name: data.toolName, done: false };
      tools.push(tool);
    }
    Object.assign(tool, { done: true, success: data.success, duration: data.duration, error: data.error ?? '' });
  },

  'llm-response': addUsage,
  'llm-error': addUsage,

  'approval-requested'(state) {
    state.status = 'waiting';
  },

  'approval-resolved'(state) {
    state.status = 'running';
  },

  progress(state, data) {
    state.progress = {
      percentage: Math.max(state.progress.percentage, Math.min(100, data.percentage)),
      step: data.currentStep,
      total: data.totalSteps,
      message: data.message ?? '',
    };
  },

  'execution-complete'(state, data) {
    finish(state, data, 'completed', 'cancelled');
    state.totalTokens = data.totalTokens;
    state.costUsd = data.costUsd ?? null;
    state.progress.percentage = 100;
  },

  'execution-error'(state, data) {
    const cancelled = data.code === 'cancelled';
    const prompt = state.prompts.get(data.promptId);
    if (prompt && !cancelled && prompt.state !== 'completed') {
      prompt.state = 'failed';
      prompt.error ??= { message: data.error, code: data.code ?? '' };
      prompt.duration ??= elapsedBetween(prompt.startedAt, data.timestamp);
    }
    finish(state, data, cancelled ? 'cancelled' : 'failed', 'cancelled');
    state.error = { message: data.error, code: data.code ?? '', recoverable: data.recoverable === true };
    state.costUsd = data.costUsd ?? null;
  },
};
