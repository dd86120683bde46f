job "task-identity-service" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      identity {
        name         = "consul"
        aud          = ["consul.io"]
        service_name = "web"
      }
    }
  }
}
