package executor

import (
	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/llm"
)

// KeyOf answers the cache key of a request. documents holds ids and versions.
func KeyOf(v *chain.Version, slug, model string, documents [][2]int64, req llm.Request) (CacheKey, error) {
	var sources []source
	for _, d := range documents {
		sources = append(sources, source{ID: d[0], Version: d[1]})
	}
	return cacheKey(v, slug, model, sources, req)
}
