package main

import "math"

// depth is how many documents of an answer are looked at.
const depth = 10

// quality says how well questions were answered, each by one document: the means
// of what the place of that document is worth.
type quality struct {
	Questions int     `json:"questions"`
	Recall    float64 `json:"recallAt10"` // how many are among the first ten
	MRR       float64 `json:"mrr"`        // 1/place, 0 behind the tenth
	NDCG      float64 `json:"ndcgAt10"`   // 1/log2(1+place); with one right document that is nDCG
}

// measureOf takes the places of the right documents, 1-based; 0 = not found.
func measureOf(places []int) quality {
	q := quality{Questions: len(places)}
	for _, place := range places {
		if place < 1 || place > depth {
			continue
		}
		q.Recall++
		q.MRR += 1 / float64(place)
		q.NDCG += 1 / math.Log2(1+float64(place))
	}
	if n := float64(len(places)); n > 0 {
		q.Recall, q.MRR, q.NDCG = q.Recall/n, q.MRR/n, q.NDCG/n
	}
	return q
}
