-- Calls of a single model without a chain of a user, as OpenAI's clients make
-- them. Each is an execution like any other, of one built-in chain.

-- What is asked: the conversation, the tools and the parameters. A table of its
-- own, so that lists and claims do not carry it; json, not jsonb, because the
-- order inside a schema is part of what a model is told.
CREATE TABLE execution_calls (
    execution_id bigint PRIMARY KEY REFERENCES executions (id) ON DELETE CASCADE,
    call         json NOT NULL
);

-- The tools that the model wanted to have called: a list of id, name and
-- arguments; null when there are none.
ALTER TABLE prompt_results ADD COLUMN tool_calls jsonb;

-- The built-in chain. Its ids lie where no sequence gets to, and are exact in
-- JavaScript; no user can choose its name, and like a deleted chain it is in no
-- list. The executor has the same document.
INSERT INTO chains (id, name, version, deleted_at) OVERRIDING SYSTEM VALUE
VALUES (9007199254740991, '_direct', 1, now());
INSERT INTO chain_prompts (id, chain_id, slug) OVERRIDING SYSTEM VALUE
VALUES (9007199254740991, 9007199254740991, 'answer');
INSERT INTO chain_versions (chain_id, version, description, document, prompt_ids)
VALUES (9007199254740991, 1, 'One call of a model, as a client asked for it',
        '{"name":"_direct","description":"One call of a model, as a client asked for it","prompts":[{"name":"Answer","position":1,"model":"offline/echo","content":"The messages of the call."}]}',
        '{9007199254740991}');
