package llmtest

// geminiWire is the format of Gemini's generateContent.
type geminiWire struct{ openAIWire }
