package main

import (
	"context"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// embeddings tells which embedding models can be used from here. Vendors are not
// asked for theirs.
func (e *examination) embeddings(ctx context.Context) {
	httpClient := llm.NewHTTPClient()
	defer httpClient.CloseIdleConnections()
	registry, err := e.command.registry(e.app.getenv, httpClient, 0)
	if err != nil {
		return // providers says what is wrong
	}
	defer registry.Close()
	registry.Refresh(ctx, false)
	var names []string
	for _, m := range registry.EmbeddingModels() {
		if m.Callable {
			names = append(names, m.ID)
		}
	}
	e.add("embeddings", verdictOK, "vectors can be made by %s", strings.Join(names, ", "))
}
