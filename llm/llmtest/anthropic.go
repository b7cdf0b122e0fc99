package llmtest

// anthropicWire is the format of Anthropic's messages.
type anthropicWire struct{ openAIWire }
