// A processor for tests, by Envoy's ext_proc protocol: it listens at the address that it is given, with TLS if the files of
// a certificate and its key follow.
//
// It adds headers to requests and responses, puts "processed:" before bodies that it is shown as a whole, turns streamed
// ones into capitals, and answers requests for /immediate itself. In full duplex it gives back what it is given, all of it
// at the end.
package main

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	mode "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	proc "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	types "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

type processor struct {
	proc.UnimplementedExternalProcessorServer
}

func set(name, value string) *proc.HeaderMutation {
	return &proc.HeaderMutation{SetHeaders: []*core.HeaderValueOption{
		{Header: &core.HeaderValue{Key: name, RawValue: []byte(value)}},
	}}
}

func find(headers *core.HeaderMap, name string) string {
	for _, header := range headers.GetHeaders() {
		if header.GetKey() == name {
			return string(header.GetRawValue())
		}
	}
	return ""
}

// What becomes of a piece of a body; nil: it is kept.
func change(kind mode.ProcessingMode_BodySendMode, kept *bytes.Buffer, body *proc.HttpBody) *proc.CommonResponse {
	switch kind {
	case mode.ProcessingMode_FULL_DUPLEX_STREAMED:
		kept.Write(body.GetBody())
		if !body.GetEndOfStream() {
			return nil
		}
		return &proc.CommonResponse{BodyMutation: &proc.BodyMutation{
			Mutation: &proc.BodyMutation_StreamedResponse{StreamedResponse: &proc.StreamedBodyResponse{
				Body: kept.Bytes(), EndOfStream: true,
			}},
		}}
	case mode.ProcessingMode_BUFFERED:
		return &proc.CommonResponse{BodyMutation: &proc.BodyMutation{
			Mutation: &proc.BodyMutation_Body{Body: append([]byte("processed:"), body.GetBody()...)},
		}}
	default:
		return &proc.CommonResponse{BodyMutation: &proc.BodyMutation{
			Mutation: &proc.BodyMutation_Body{Body: bytes.ToUpper(body.GetBody())},
		}}
	}
}

func (processor) Process(stream proc.ExternalProcessor_ProcessServer) error {
	var config *proc.ProtocolConfiguration
	var request, response bytes.Buffer
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if config == nil {
			config = message.GetProtocolConfig()
		}
		answer := &proc.ProcessingResponse{}
		switch shown := message.GetRequest().(type) {
		case *proc.ProcessingRequest_RequestHeaders:
			path := find(shown.RequestHeaders.GetHeaders(), ":path")
			if strings.HasPrefix(path, "/immediate") {
				answer.Response = &proc.ProcessingResponse_ImmediateResponse{ImmediateResponse: &proc.ImmediateResponse{
					Status:  &types.HttpStatus{Code: types.StatusCode_Locked},
					Headers: set("x-processor", "immediate"),
					Body:    []byte("answered by the processor"),
				}}
				break
			}
			answer.Response = &proc.ProcessingResponse_RequestHeaders{RequestHeaders: &proc.HeadersResponse{
				Response: &proc.CommonResponse{HeaderMutation: set("x-processed-path", path)},
			}}
		case *proc.ProcessingRequest_ResponseHeaders:
			status := find(shown.ResponseHeaders.GetHeaders(), ":status")
			answer.Response = &proc.ProcessingResponse_ResponseHeaders{ResponseHeaders: &proc.HeadersResponse{
				Response: &proc.CommonResponse{HeaderMutation: set("x-processed-status", status)},
			}}
		case *proc.ProcessingRequest_RequestBody:
			changed := change(config.GetRequestBodyMode(), &request, shown.RequestBody)
			if changed == nil {
				continue
			}
			answer.Response = &proc.ProcessingResponse_RequestBody{
				RequestBody: &proc.BodyResponse{Response: changed},
			}
		case *proc.ProcessingRequest_ResponseBody:
			changed := change(config.GetResponseBodyMode(), &response, shown.ResponseBody)
			if changed == nil {
				continue
			}
			answer.Response = &proc.ProcessingResponse_ResponseBody{
				ResponseBody: &proc.BodyResponse{Response: changed},
			}
		default:
			continue
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var options []grpc.ServerOption
	if len(os.Args) > 3 {
		certificate, err := credentials.NewServerTLSFromFile(os.Args[2], os.Args[3])
		if err != nil {
			log.Fatal(err)
		}
		options = append(options, grpc.Creds(certificate))
	}
	server := grpc.NewServer(options...)
	proc.RegisterExternalProcessorServer(server, processor{})
	log.Fatal(server.Serve(listener))
}
