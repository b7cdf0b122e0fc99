// Command retrieval measures how long searches take as repositories grow, and how
// much of the truth an index finds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
	"github.com/chainstream/chainstream/knowledge"
)

const about = `
A repository of made-up passages: words that are as unequally common as those of a
language (Zipf), and vectors in clusters, a fortieth of the number of passages but
at most 4000, which differ along 32 axes and a little in all: those of texts differ
along some tens, however many numbers they have. The index is made as the server makes
it. Questions are vectors of the same clusters, with five words of middling frequency;
each is asked as the API asks it with a limit of 10.

vector, keyword, hybrid   the product's statement, through its store
pgvector                  the ten nearest of the same table by a plain statement with
                          the same ef_search: what the extension alone would take
recall@10                 how many of the ten truly nearest are among the first ten
                          of vector, by reading all vectors

All alternate, one at a time, each being the first as often.`

func main() { os.Exit(program.Main("retrieval", about, define)) }

type config struct {
	sizes      string
	dimensions int
	questions  int
	truths     int
	warm       int
	keep       string
}

func define(flags *flag.FlagSet) program.Run {
	var c config
	flags.StringVar(&c.sizes, "chunks", "10000,30000", "`numbers` of passages, separated by commas")
	flags.IntVar(&c.dimensions, "dimensions", 768, "of the vectors")
	flags.IntVar(&c.questions, "questions", 200, "how many are asked, in every way")
	flags.IntVar(&c.truths, "truths", 50, "of how many of them the truth is looked for")
	flags.IntVar(&c.warm, "warm", 20, "questions before those that count")
	flags.StringVar(&c.keep, "keep", "", "`folder` for the databases; one that is there already is measured again")
	return func(ctx context.Context, w io.Writer) error { return c.run(ctx, w) }
}

// subject is a way to search.
type subject struct {
	name    string
	ask     func(ctx context.Context, q question) ([]int64, error)
	latency measure.Latencies
}

func (c config) run(ctx context.Context, w io.Writer) error {
	table := measure.NewTable("passages", "search", "p50 ms", "p95 ms", "of pgvector's p50", "recall@10")
	var notes []string
	for text := range strings.SplitSeq(c.sizes, ",") {
		size, err := strconv.Atoi(text)
		if err != nil || size < 1000 {
			return fmt.Errorf("-chunks: %q is no number from 1000", text)
		}
		note, err := c.size(ctx, size, table)
		if err != nil {
			return err
		}
		notes = append(notes, note)
	}
	if _, err := fmt.Fprintf(w, "%d dimensions. %s\n\n", c.dimensions, strings.Join(notes, " ")); err != nil {
		return err
	}
	_, err := table.WriteTo(w)
	return err
}

// size measures a repository of one size.
func (c config) size(ctx context.Context, size int, table *measure.Table) (note string, err error) {
	database, err := c.database(ctx, size)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	conn, err := pgx.Connect(ctx, database.URL)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the database goes as well
	m := newMaker(size, c.dimensions)
	r, made, err := c.repository(ctx, database, conn, m)
	if err != nil {
		return "", err
	}
	var bytes int64
	if err := conn.QueryRow(ctx, "SELECT pg_relation_size(format('chunk_vectors_%s_hnsw', $1::bigint))", r.Space.ID).Scan(&bytes); err != nil {
		return "", err
	}
	subjects := c.subjects(database, conn, r)
	questions := m.questions(c.warm + c.questions)
	for i, q := range questions {
		// Each is the first in its turn: it fetches what the others find in memory.
		for turn := range subjects {
			s := subjects[(i+turn)%len(subjects)]
			began := time.Now()
			if _, err := s.ask(ctx, q); err != nil {
				return "", fmt.Errorf("%s: %w", s.name, err)
			}
			if i >= c.warm {
				s.latency.Add(time.Since(began), 1)
			}
		}
	}
	recall, err := c.recall(ctx, conn, r, subjects[0], questions[c.warm:])
	if err != nil {
		return "", err
	}
	plain := subjects[len(subjects)-1].latency.Quantile(0.5)
	for _, s := range subjects {
		found := "–"
		if s == subjects[0] {
			found = fmt.Sprintf("%.3f", recall)
		}
		p50 := s.latency.Quantile(0.5)
		table.Row(strconv.Itoa(size), s.name, measure.Millis(p50), measure.Millis(s.latency.Quantile(0.95)), measure.Figures(float64(p50)/float64(plain)), found)
	}
	return fmt.Sprintf("%d passages: %s, index of %d MB.", size, made, bytes>>20), nil
}

// recall answers the share of the truth that a subject finds.
func (c config) recall(ctx context.Context, conn *pgx.Conn, r knowledge.Repository, s *subject, questions []question) (float64, error) {
	var right, all int
	for _, q := range questions[:min(c.truths, len(questions))] {
		ids, err := s.ask(ctx, q)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", s.name, err)
		}
		truth, err := nearest(ctx, conn, r, q)
		if err != nil {
			return 0, err
		}
		all += len(truth)
		for _, id := range truth {
			if slices.Contains(ids, id) {
				right++
			}
		}
	}
	return float64(right) / float64(max(all, 1)), nil
}

// database starts the database for a number of passages.
func (c config) database(ctx context.Context, size int) (*rig.Database, error) {
	if c.keep == "" {
		return rig.StartDatabase(ctx)
	}
	return rig.OpenDatabase(ctx, filepath.Join(c.keep, fmt.Sprintf("%d-%d", size, c.dimensions)))
}

// repository makes the repository, unless it is there, and tells how long that took.
func (c config) repository(ctx context.Context, database *rig.Database, conn *pgx.Conn, m *maker) (r knowledge.Repository, made string, err error) {
	there, err := database.Store.Repositories(ctx, 0, 1)
	if err != nil {
		return r, "", err
	}
	if len(there) > 0 {
		r = there[0]
	} else if r, err = database.Store.CreateRepository(ctx, knowledge.Repository{
		Name: "bench", Language: "english", ChunkTokens: 400, Space: knowledge.Space{Model: "bench/clusters", Dimensions: c.dimensions},
	}); err != nil {
		return r, "", err
	}
	begin := time.Now()
	if err := m.fill(ctx, conn, r); err != nil {
		return r, "", err
	}
	made = fmt.Sprintf("stored in %.0f s", time.Since(begin).Seconds())
	begin = time.Now()
	n, err := database.Store.IndexSpaces(ctx, database.URL)
	if err != nil {
		return r, "", err
	}
	if n > 0 {
		made += fmt.Sprintf(", index made in %.0f s", time.Since(begin).Seconds())
	}
	_, err = conn.Exec(ctx, "VACUUM ANALYZE")
	return r, made, err
}

// top is how many passages are asked for.
const top = 10

// subjects are the ways to search, pgvector alone last.
func (c config) subjects(database *rig.Database, conn *pgx.Conn, r knowledge.Repository) []*subject {
	search := func(mode string) func(context.Context, question) ([]int64, error) {
		return func(ctx context.Context, q question) ([]int64, error) {
			found, err := database.Store.SearchChunks(ctx, knowledge.Search{
				Repositories: []int64{r.ID}, Mode: mode, Parts: []string{q.text}, Vectors: []knowledge.SpaceVectors{{Space: r.Space.ID, Vectors: [][]float32{q.vector}}}, Candidates: 50,
			})
			var ids []int64
			for _, f := range found[:min(len(found), top)] {
				ids = append(ids, f.ChunkID)
			}
			return ids, err
		}
	}
	plain := fmt.Sprintf("SELECT chunk_id FROM chunk_vectors_%d ORDER BY embedding::halfvec(%[2]d) <=> $1::halfvec(%[2]d) LIMIT %d", r.Space.ID, c.dimensions, top)
	return []*subject{
		{name: knowledge.SearchVector, ask: search(knowledge.SearchVector)},
		{name: knowledge.SearchKeyword, ask: search(knowledge.SearchKeyword)},
		{name: knowledge.SearchHybrid, ask: search(knowledge.SearchHybrid)},
		{name: "pgvector", ask: func(ctx context.Context, q question) ([]int64, error) {
			return ids(ctx, conn, "SET LOCAL hnsw.ef_search = 100", plain, q)
		}},
	}
}

// nearest answers the truth.
func nearest(ctx context.Context, conn *pgx.Conn, r knowledge.Repository, q question) ([]int64, error) {
	return ids(ctx, conn, "SET LOCAL enable_indexscan = off", fmt.Sprintf(
		"SELECT chunk_id FROM chunk_vectors_%d ORDER BY embedding::halfvec(%[2]d) <=> $1::halfvec(%[2]d) LIMIT %d", r.Space.ID, r.Space.Dimensions, top), q)
}

func ids(ctx context.Context, conn *pgx.Conn, setting, query string, q question) (out []int64, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, setting); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, query, literal(q.vector))
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	return out, err
}
