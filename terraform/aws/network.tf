resource "aws_vpc" "dionysia" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = "dionysia" }
}

resource "aws_subnet" "dionysia" {
  vpc_id            = aws_vpc.dionysia.id
  cidr_block        = var.cidr
  availability_zone = var.zone
  tags              = { Name = "dionysia" }
}

resource "aws_internet_gateway" "dionysia" {
  vpc_id = aws_vpc.dionysia.id
  tags   = { Name = "dionysia" }
}

resource "aws_route_table" "dionysia" {
  vpc_id = aws_vpc.dionysia.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.dionysia.id
  }
}

resource "aws_route_table_association" "dionysia" {
  subnet_id      = aws_subnet.dionysia.id
  route_table_id = aws_route_table.dionysia.id
}

# Among themselves the machines may do everything; from outside, only operators by SSH.
resource "aws_security_group" "inside" {
  name   = "dionysia-inside"
  vpc_id = aws_vpc.dionysia.id

  ingress {
    from_port = 0
    to_port   = 0
    protocol  = "-1"
    self      = true
  }

  dynamic "ingress" {
    for_each = length(var.operators) > 0 ? [1] : []

    content {
      description = "SSH"
      from_port   = 22
      to_port     = 22
      protocol    = "tcp"
      cidr_blocks = var.operators
    }
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_security_group" "ingest" {
  name   = "dionysia-ingest"
  vpc_id = aws_vpc.dionysia.id

  dynamic "ingress" {
    for_each = {
      RTMP        = { port = 1935, protocol = "tcp" }
      SRT         = { port = 8890, protocol = "udp" }
      WHIP        = { port = 8889, protocol = "tcp" }
      "WHIP, ICE" = { port = 8189, protocol = "udp" }
    }

    content {
      description = ingress.key
      from_port   = ingress.value.port
      to_port     = ingress.value.port
      protocol    = ingress.value.protocol
      cidr_blocks = var.publishers
    }
  }
}

resource "aws_security_group" "edge" {
  name   = "dionysia-edge"
  vpc_id = aws_vpc.dionysia.id

  ingress {
    description = "viewers, or the CDN before them"
    from_port   = 80
    to_port     = 80
    protocol    = "tcp"
    cidr_blocks = var.viewers
  }
}
