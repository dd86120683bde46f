job "task-resources-cores" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      resources {
        cores  = 2
        memory = 1024
      }
    }
  }
}
