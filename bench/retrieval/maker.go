package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/pgvector/pgvector-go"
	pgxvector "github.com/pgvector/pgvector-go/pgx"

	"github.com/chainstream/chainstream/knowledge"
)

// question is a search.
type question struct {
	text   string
	vector []float32
}

// maker makes passages and questions, the same ones every time.
type maker struct {
	random  *rand.Rand // of what is made now
	zipf    *rand.Zipf
	axes    [][]float32 // along which vectors differ
	centres [][]float32 // of the clusters, along the axes
	size    int
}

// Shape of what is made.
const (
	vocabulary    = 50_000
	wordsOfChunk  = 120
	chunksOfPaper = 100 // passages of a document
	mostClusters  = 4000
	meanings      = 32  // axes along which vectors differ
	spread        = 0.7 // of a cluster along each of them; that of the centres is 1
	noise         = 0.2 // length of what a vector has beside them
)

func newMaker(size, dimensions int) *maker {
	m := &maker{random: rand.New(rand.NewPCG(1, 2)), size: size} // the same every time
	m.zipf = rand.NewZipf(m.random, 1.07, 4, vocabulary-1)
	for range meanings {
		m.axes = append(m.axes, m.direction(dimensions))
	}
	for range min(max(size/40, 1), mostClusters) {
		m.centres = append(m.centres, m.normal(meanings))
	}
	return m
}

// normal answers numbers that are spread by 1.
func (m *maker) normal(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(m.random.NormFloat64())
	}
	return v
}

// direction answers a vector of the length 1.
func (m *maker) direction(dimensions int) []float32 { return unit(m.normal(dimensions)) }

func unit(v []float32) []float32 {
	var square float64
	for _, x := range v {
		square += float64(x) * float64(x)
	}
	scale := float32(1 / math.Sqrt(square))
	for i := range v {
		v[i] *= scale
	}
	return v
}

// near answers a vector of a cluster.
func (m *maker) near() []float32 {
	v := m.direction(len(m.axes[0]))
	for i := range v {
		v[i] *= noise
	}
	for axis, at := range m.centres[m.random.IntN(len(m.centres))] {
		at += spread * float32(m.random.NormFloat64())
		for i, x := range m.axes[axis] {
			v[i] += at * x
		}
	}
	return unit(v)
}

func (m *maker) text() string {
	var b strings.Builder
	for range wordsOfChunk {
		fmt.Fprintf(&b, "w%d ", m.zipf.Uint64())
	}
	return b.String()
}

// questions makes searches. Their words are neither the most common nor the rarest.
func (m *maker) questions(n int) []question {
	m.random = rand.New(rand.NewPCG(3, 4)) // they do not hang on how much was made before
	out := make([]question, n)
	for i := range out {
		var words []string
		for range 5 {
			words = append(words, fmt.Sprintf("w%d", 100+m.random.IntN(5000)))
		}
		out[i] = question{text: strings.Join(words, " "), vector: m.near()}
	}
	return out
}

// regconfig is the number of the type of text search configurations.
const regconfig = 3734

// fill stores passages in a repository, in bulk, as far as they are not there.
func (m *maker) fill(ctx context.Context, conn *pgx.Conn, r knowledge.Repository) error {
	if err := pgxvector.RegisterTypes(ctx, conn); err != nil {
		return fmt.Errorf("learn the types of vectors: %w", err)
	}
	var passages, vectors bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM repository_words), EXISTS (SELECT FROM chunk_vectors)").Scan(&passages, &vectors); err != nil {
		return fmt.Errorf("look for passages: %w", err)
	}
	if !passages {
		if err := m.fillPassages(ctx, conn, r); err != nil {
			return err
		}
	}
	if vectors {
		return nil
	}
	return m.fillVectors(ctx, conn, r)
}

func (m *maker) fillPassages(ctx context.Context, conn *pgx.Conn, r knowledge.Repository) error {
	// Not a type that pgx knows by itself.
	conn.TypeMap().RegisterType(&pgtype.Type{Name: "regconfig", OID: regconfig, Codec: pgtype.Uint32Codec{}})
	papers := (m.size + chunksOfPaper - 1) / chunksOfPaper
	if _, err := conn.Exec(ctx, `INSERT INTO documents (repository_id, name, version, uploaded, status, progress, bytes, content_hash, chunks)
		SELECT $1, 'paper ' || n, 1, 1, 'ready', 100, 0, '', $3 FROM generate_series(1, $2::integer) n`, r.ID, papers, chunksOfPaper); err != nil {
		return fmt.Errorf("store documents: %w", err)
	}
	var first int64
	var language uint32
	if err := conn.QueryRow(ctx, "SELECT min(id), 'english'::regconfig::oid FROM documents WHERE repository_id = $1", r.ID).Scan(&first, &language); err != nil {
		return fmt.Errorf("read documents: %w", err)
	}
	// An index over all at once is made several times faster than one that grows.
	var words string
	if err := conn.QueryRow(ctx, "SELECT pg_get_indexdef('chunks_repository_words_idx'::regclass)").Scan(&words); err != nil {
		return fmt.Errorf("read the index over words: %w", err)
	}
	if _, err := conn.Exec(ctx, "DROP INDEX chunks_repository_words_idx"); err != nil {
		return fmt.Errorf("remove the index over words: %w", err)
	}
	if err := m.copyFrom(ctx, conn, "chunks",
		[]string{"repository_id", "document_id", "version", "ordinal", "headings", "text", "tokens", "content_hash", "language"},
		func(n int) []any {
			return []any{r.ID, first + int64(n/chunksOfPaper), 1, n % chunksOfPaper, "", m.text(), wordsOfChunk, binary.BigEndian.AppendUint64(nil, uint64(n)), language}
		}); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, words); err != nil {
		return fmt.Errorf("make the index over words: %w", err)
	}
	if _, err := conn.Exec(ctx, `INSERT INTO repository_words (repository_id, word, chunks)
		SELECT c.repository_id, u.lexeme, count(*) FROM chunks c, unnest(c.words) u WHERE c.repository_id = $1 GROUP BY 1, 2
		UNION ALL SELECT $1, '', count(*) FROM chunks WHERE repository_id = $1`, r.ID); err != nil {
		return fmt.Errorf("count words: %w", err)
	}
	return nil
}

func (m *maker) fillVectors(ctx context.Context, conn *pgx.Conn, r knowledge.Repository) error {
	var first int64
	if err := conn.QueryRow(ctx, "SELECT min(id) FROM chunks WHERE repository_id = $1", r.ID).Scan(&first); err != nil {
		return fmt.Errorf("read passages: %w", err)
	}
	return m.copyFrom(ctx, conn, fmt.Sprintf("chunk_vectors_%d", r.Space.ID), []string{"chunk_id", "space_id", "embedding", "cut"},
		func(n int) []any { return []any{first + int64(n), r.Space.ID, pgvector.NewHalfVector(m.near()), false} })
}

// copyFrom stores a row for every passage.
func (m *maker) copyFrom(ctx context.Context, conn *pgx.Conn, table string, columns []string, row func(n int) []any) error {
	n := -1
	_, err := conn.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromFunc(func() ([]any, error) {
		if n++; n == m.size {
			return nil, nil
		}
		return row(n), nil
	}))
	if err != nil {
		return fmt.Errorf("fill %s: %w", table, err)
	}
	return nil
}

func literal(v []float32) string { return pgvector.NewHalfVector(v).String() }
