package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	openai "github.com/sashabaranov/go-openai" //nolint:depguard // the floor is this client without us

	"github.com/chainstream/chainstream/bench/internal/fakemodel"
)

// caller makes the calls of the chain without a server.
type caller struct{ client *openai.Client }

func newCaller(url string, connections int) *caller {
	config := openai.DefaultConfig("none")
	config.BaseURL = url
	config.HTTPClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, IdleConnTimeout: time.Minute}}
	return &caller{client: openai.NewClientWithConfig(config)}
}

// chain makes the calls one after the other, each with the answer to the one
// before. It answers the number of chunks with text.
func (c *caller) chain(ctx context.Context) (int64, error) {
	text, total := "Echo: one two three", int64(0)
	for range prompts {
		var err error
		var n int64
		if text, n, err = c.call(ctx, text); err != nil {
			return total, err
		}
		if n != fakemodel.Chunks {
			return total, fmt.Errorf("%d chunks came, not %d", n, fakemodel.Chunks)
		}
		total += n
	}
	return total, nil
}

func (c *caller) call(ctx context.Context, prompt string) (text string, n int64, err error) {
	stream, err := c.client.CreateChatCompletionStream(ctx, openai.ChatCompletionRequest{
		Model: "fake", Messages: []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, Content: prompt}},
		StreamOptions: &openai.StreamOptions{IncludeUsage: true},
	})
	if err != nil {
		return "", 0, err
	}
	defer stream.Close() //nolint:errcheck // it has been read to its end
	var b strings.Builder
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b.String(), n, nil
		}
		if err != nil {
			return "", n, err
		}
		for _, choice := range chunk.Choices {
			if choice.Delta.Content != "" {
				b.WriteString(choice.Delta.Content)
				n++
			}
		}
	}
}
