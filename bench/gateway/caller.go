package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/chainstream/chainstream/bench/internal/fakemodel"
)

// caller calls one server with OpenAI's API. It reads as little as it can, so that
// what is measured is the server.
type caller struct {
	url, model string
	client     *http.Client
}

func newCaller(base, model string, connections int) *caller {
	return &caller{
		url: base + "/chat/completions", model: model,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, IdleConnTimeout: time.Minute}},
	}
}

// lastWord ends every answer of the model.
var lastWord = fmt.Sprintf("word%d ", fakemodel.Chunks-1)

// call makes a call and reads the whole answer; first is called when the first
// text has come.
func (c *caller) call(ctx context.Context, stream bool, first func()) error {
	body := fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"user","content":"Say twenty words."}]}`, c.model, stream)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %s: %s", c.url, res.Status, text)
	}
	if !stream {
		return whole(res.Body)
	}
	return streamed(res.Body, first)
}

func whole(body io.Reader) error {
	var answer struct {
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return err
	}
	if len(answer.Choices) != 1 || !strings.HasSuffix(answer.Choices[0].Message.Content, lastWord) {
		return fmt.Errorf("the answer is %v", answer)
	}
	_, err := io.Copy(io.Discard, body) // so that the connection can be used again
	return err
}

func streamed(body io.Reader, first func()) error {
	lines := bufio.NewScanner(body)
	begun, last, done := false, false, false
	for lines.Scan() {
		line := lines.Bytes()
		if !begun && bytes.Contains(line, []byte(`"content":"word0`)) {
			begun = true
			first()
		}
		last = last || bytes.Contains(line, []byte(lastWord))
		done = done || bytes.Equal(line, []byte("data: [DONE]"))
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if !begun || !last || !done {
		return fmt.Errorf("the stream is not whole: first word %t, last word %t, end marker %t", begun, last, done)
	}
	return nil
}
