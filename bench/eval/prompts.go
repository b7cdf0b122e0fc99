package main

import (
	"fmt"
	"strings"
)

// wrappers are prompts around a question, as chains have them: most of their words
// are not about what is looked for.
var wrappers = []string{
	`You work at the help desk of a company that runs a large number of servers. Colleagues write to you when something is unclear to them, and they expect an answer that they can act on without reading a manual themselves. Today one of them writes:

%s

Write the answer as an e-mail of at most two hundred words. Begin with the answer itself, then give the reasons, and end with a short list of the steps to take, if there are any. Use only what is stated in the passages from the documentation that you are given. Name the passage after every statement, with its number in square brackets. Where the passages contradict each other, say so and prefer the newer one. If they do not answer the message at all, say in one sentence that the documentation has no answer and suggest whom to ask instead. Do not invent commands, options, versions or addresses. Write plainly, without greetings that are longer than a line, and without marketing.`,
	`Summarise what our documentation says about the following topic for a reader who has ten years of experience as an engineer but has never used this product: "%s". The summary is part of a weekly report that is read on a telephone, so keep paragraphs to three sentences and the whole below one hundred and fifty words. Explain terms when they first come up. Put names of programs, files and options into backticks. After the summary, list up to three open points on which the documentation is silent and which the reader will probably ask about next. The tone is factual. Do not repeat this instruction, do not mention that you are a language model, and do not apologise.`,
	`Role: reviewer of translations. Task: check whether the German text below answers the customer's English request completely and correctly. Context: the passages from the manual, which are the only source of truth. Request of the customer: %s Text to check: [not yet written]. Since the text to check is missing, first draft the answer yourself in English, so that the translator can begin. Keep to the structure of the manual, give the exact names of commands, and mark everything you are not sure of with a question mark. The draft must not be longer than one page and has to be understandable without having seen the request.`,
}

// wrapped puts questions into prompts.
func wrapped(questions []question) []question {
	out := make([]question, len(questions))
	for i, q := range questions {
		q.text = fmt.Sprintf(wrappers[i%len(wrappers)], strings.TrimSpace(q.text))
		out[i] = q
	}
	return out
}
