package httpapi

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
)

// openAIModel is a model as OpenAI lists it.
type openAIModel struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"` // 0 where it is not known
	OwnedBy string `json:"owned_by"`
}

func chainModel(v *chain.Version) openAIModel {
	return openAIModel{ID: chainPrefix + v.Chain.Name, Object: "model", Created: v.CreatedAt.Unix(), OwnedBy: "chainstream"}
}

func providerModel(id string) openAIModel {
	vendor, _, _ := strings.Cut(id, "/")
	return openAIModel{ID: id, Object: "model", OwnedBy: vendor}
}

// chainPage is how many chains are read at once.
const chainPage = 200

// listOpenAIModels is GET /v1/models: every chain, and the well-known models of
// the providers that are set up.
func (s *Server) listOpenAIModels(c echo.Context) error {
	models := []openAIModel{}
	for after := int64(0); ; {
		page, err := s.cfg.Store.Chains(c.Request().Context(), after, chainPage)
		if err != nil {
			return err
		}
		for _, v := range page {
			models = append(models, chainModel(v))
			after = v.ChainID
		}
		if len(page) < chainPage {
			break
		}
	}
	for _, m := range s.cfg.Models.Models() {
		if m.Configured {
			models = append(models, providerModel(m.ID))
		}
	}
	for _, m := range s.cfg.Models.EmbeddingModels() {
		if m.Callable {
			models = append(models, providerModel(m.ID))
		}
	}
	return c.JSON(http.StatusOK, struct {
		Object string        `json:"object"`
		Data   []openAIModel `json:"data"`
	}{"list", models})
}

// showOpenAIModel is GET /v1/models/{id}; the id has a slash, escaped or not. A
// model of a provider need not be in the list.
func (s *Server) showOpenAIModel(c echo.Context) error {
	id := c.Param("*")
	if name, isChain := strings.CutPrefix(id, chainPrefix); isChain {
		v, err := s.findChain(c.Request().Context(), 0, name, 0)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, chainModel(v))
	}
	if _, err := s.cfg.Models.Resolve(id); err != nil {
		return noModel("The model cannot be called here: " + err.Error() + ".")
	}
	return c.JSON(http.StatusOK, providerModel(id))
}
