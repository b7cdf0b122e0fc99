package llm

// What a request adds to its texts, in tokens: every message has a frame of three
// and its role, which is one, and the answer is opened, as OpenAI documents it
// for its chat models. What other vendors add is unknown, and of the same size.
const (
	messageFrame  = 3 + 1
	requestFrame  = 3
	toolFrame     = 7  // for each tool
	toolsFrame    = 12 // once, where there are tools
	toolCallFrame = 3
)

// Tokens that an image counts for. No vendor's rule can be followed without the
// size of the image, which an address does not tell, so that these are flat:
// LowImageTokens for Image.Detail low, ImageTokens for any other. Pictures of
// the usual sizes are between 250 and 1,600 tokens for the vendors.
const (
	LowImageTokens = 85
	ImageTokens    = 1600
)

// CountTokens counts the tokens of a text: as the model does, or else by
// EstimateTokens, and then not exact.
func (i Info) CountTokens(text string) (n int64, exact bool) {
	if i.Count == nil {
		return EstimateTokens(text), false
	}
	return i.Count(text), true
}

// CountMessage counts what a message adds to a prompt. It is exact when the
// model's tokenizer is at hand and the message is nothing but text.
func (i Info) CountMessage(m Message) (n int64, exact bool) {
	c := counter{info: i, exact: i.Count != nil}
	c.message(m)
	return c.tokens, c.exact
}

// CountRequest counts the prompt of a request: the messages, and the tools and
// the schema that go with it. Without tools and schema it is the sum of
// CountMessage over the messages, and three more. It is exact under the
// condition of CountMessage, and when there are neither tools nor a schema:
// vendors put those into words of their own.
func (i Info) CountRequest(req Request) (n int64, exact bool) {
	c := counter{info: i, tokens: requestFrame, exact: i.Count != nil}
	for _, m := range req.Messages {
		c.message(m)
	}
	if len(req.Schema) > 0 {
		c.text(string(req.Schema))
		c.exact = false
	}
	for _, t := range req.Tools {
		c.tokens += toolFrame
		c.text(t.Name)
		c.text(t.Description)
		c.text(string(t.Parameters))
	}
	if len(req.Tools) > 0 {
		c.tokens += toolsFrame
		c.exact = false
	}
	return c.tokens, c.exact
}

// EstimateUsage counts a call whose provider gave no figures: one that was cut
// off, or one that succeeded without usage. The result is marked Estimated, even
// where the tokens of the texts are exact: the provider may have done more than
// it has shown.
func (i Info) EstimateUsage(req Request, text, reasoning string) Usage {
	u := Usage{Estimated: true}
	u.InputTokens, _ = i.CountRequest(req)
	u.ReasoningTokens, _ = i.CountTokens(reasoning)
	u.OutputTokens, _ = i.CountTokens(text)
	u.OutputTokens += u.ReasoningTokens
	return u
}

// EstimateUsage is Info.EstimateUsage for a model nothing is known of.
func EstimateUsage(req Request, text, reasoning string) Usage {
	return Info{}.EstimateUsage(req, text, reasoning)
}

// counter adds up the tokens of a prompt.
type counter struct {
	info   Info
	tokens int64
	exact  bool
}

func (c *counter) text(s string) {
	n, _ := c.info.CountTokens(s)
	c.tokens += n
}

func (c *counter) message(m Message) {
	c.tokens += messageFrame
	c.text(m.Text)
	for _, image := range m.Images {
		if image.Detail == "low" {
			c.tokens += LowImageTokens
		} else {
			c.tokens += ImageTokens
		}
	}
	for _, call := range m.ToolCalls {
		c.tokens += toolCallFrame
		c.text(call.Name)
		c.text(call.Arguments)
	}
	if len(m.Images) > 0 || len(m.ToolCalls) > 0 || m.ToolCallID != "" {
		c.exact = false
	}
}
