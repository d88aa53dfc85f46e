// An authorizer for tests: the same decisions over HTTP (port 9000) and over Envoy's ext_authz gRPC service (port 9001).
//
// A request is allowed exactly if its header Authorization is "Bearer good". The answer's headers tell the backend what
// the authorizer was shown: of the request's headers, its path, and its body.
//
// /jwks.json over HTTP is what the environment's JWKS holds.
package main

import (
	"context"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	types "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

const secret = "Bearer good"

// What the authorizer was shown of a request.
type question struct {
	headers []string
	path    string
	body    string
}

// The headers that an allowed request gets.
func (q question) answer(protocol string) map[string]string {
	slices.Sort(q.headers)
	return map[string]string{
		"x-auth-user":     "alice",
		"x-auth-protocol": protocol,
		"x-auth-headers":  strings.Join(q.headers, " "),
		"x-auth-path":     q.path,
		"x-auth-body":     strconv.Itoa(len(q.body)) + ":" + q.body,
	}
}

func overHTTP(writer http.ResponseWriter, request *http.Request) {
	if keys, given := os.LookupEnv("JWKS"); given && request.URL.Path == "/jwks.json" {
		writer.Header().Set("Content-Type", "application/json")
		io.WriteString(writer, keys)
		return
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	if request.Header.Get("Authorization") != secret {
		writer.Header().Set("X-Auth-Denied", "http")
		writer.WriteHeader(http.StatusForbidden)
		io.WriteString(writer, "denied over http")
		return
	}
	shown := question{path: request.RequestURI, body: string(body)}
	for name := range request.Header {
		shown.headers = append(shown.headers, strings.ToLower(name))
	}
	for name, value := range shown.answer("http") {
		writer.Header().Set(name, value)
	}
}

type overGRPC struct {
	auth.UnimplementedAuthorizationServer
}

func (overGRPC) Check(_ context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	http := request.GetAttributes().GetRequest().GetHttp()
	if http.GetHeaders()["authorization"] != secret {
		return &auth.CheckResponse{
			Status: &status.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
				Status:  &types.HttpStatus{Code: types.StatusCode_Forbidden},
				Headers: options(map[string]string{"x-auth-denied": "grpc"}),
				Body:    "denied over grpc",
			}},
		}, nil
	}
	shown := question{
		headers: slices.Collect(maps.Keys(http.GetHeaders())),
		path:    http.GetPath(),
		body:    http.GetBody(),
	}
	return &auth.CheckResponse{
		Status: &status.Status{Code: int32(codes.OK)},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{
			Headers:         options(shown.answer("grpc")),
			HeadersToRemove: []string{"authorization"},
		}},
	}, nil
}

func options(headers map[string]string) []*core.HeaderValueOption {
	var list []*core.HeaderValueOption
	for name, value := range headers {
		list = append(list, &core.HeaderValueOption{Header: &core.HeaderValue{Key: name, Value: value}})
	}
	return list
}

func main() {
	listener, err := net.Listen("tcp", ":9001")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	auth.RegisterAuthorizationServer(server, overGRPC{})
	go func() { log.Fatal(server.Serve(listener)) }()
	log.Fatal(http.ListenAndServe(":9000", http.HandlerFunc(overHTTP)))
}
