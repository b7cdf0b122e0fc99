package main

import (
	"errors"
	"fmt"
)

// floor is the least quality that is accepted, a little below what was measured.
var floor = map[string]map[string]quality{
	"debian-faq": {
		"vector":  {Recall: 0.46, MRR: 0.17},
		"keyword": {Recall: 0.67, MRR: 0.40},
		"hybrid":  {Recall: 0.70, MRR: 0.36},
	},
	"debian-faq in a prompt": {
		"vector":  {Recall: 0.20, MRR: 0.06},
		"keyword": {Recall: 0.39, MRR: 0.19},
		"hybrid":  {Recall: 0.33, MRR: 0.17},
	},
}

// check tells what has become worse.
func check(results []result) error {
	var worse []error
	for _, r := range results {
		least, ok := floor[r.Corpus][r.Search]
		if !ok {
			continue
		}
		if r.Recall < least.Recall || r.MRR < least.MRR {
			worse = append(worse, fmt.Errorf("%s, %s: recall@10 %.3f and MRR %.3f, at least %.3f and %.3f are expected",
				r.Corpus, r.Search, r.Recall, r.MRR, least.Recall, least.MRR))
		}
	}
	return errors.Join(worse...)
}
