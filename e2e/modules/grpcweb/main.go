// A backend that speaks gRPC and a client that speaks gRPC-Web, both of the standard health service.
//
//	grpcweb backend ADDRESS   serves until it is ended
//	grpcweb check ADDRESS     calls it by way of the proxy at the address, over HTTP/1.1
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

type (
	request  = grpc_health_v1.HealthCheckRequest
	response = grpc_health_v1.HealthCheckResponse
)

// The service that the backend says is well.
const known = "known"

func backend(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	checks := health.NewServer()
	checks.SetServingStatus(known, grpc_health_v1.HealthCheckResponse_SERVING)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, checks)
	return server.Serve(listener)
}

func check(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	base := "http://" + address + "/grpc.health.v1.Health/"
	call := connect.NewClient[request, response](http.DefaultClient, base+"Check", connect.WithGRPCWeb())
	for range 3 {
		got, err := call.CallUnary(ctx, connect.NewRequest(&request{Service: known}))
		if err != nil {
			return fmt.Errorf("a call: %w", err)
		}
		if got.Msg.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("a call: %v", got.Msg)
		}
		_, err = call.CallUnary(ctx, connect.NewRequest(&request{Service: "unknown"}))
		if connect.CodeOf(err) != connect.CodeNotFound {
			return fmt.Errorf("a call that fails: %w", errors.Join(err, errors.New("it is not NotFound")))
		}
	}
	watch := connect.NewClient[request, response](http.DefaultClient, base+"Watch", connect.WithGRPCWeb())
	stream, err := watch.CallServerStream(ctx, connect.NewRequest(&request{Service: known}))
	if err != nil {
		return fmt.Errorf("a stream: %w", err)
	}
	defer stream.Close()
	// The first message comes at once, although the stream has no end.
	if !stream.Receive() || stream.Msg().GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("a stream: %w", errors.Join(stream.Err(), errors.New("no message")))
	}
	return nil
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: grpcweb backend|check ADDRESS")
	}
	run := map[string]func(string) error{"backend": backend, "check": check}[os.Args[1]]
	if run == nil {
		log.Fatalf("%s: unknown", os.Args[1])
	}
	if err := run(os.Args[2]); err != nil {
		log.Fatal(err)
	}
}
